"""The federated methods: header, server and clients for each name, over one shared replica."""

from __future__ import annotations

from typing import Any

from covector.estimators import Backprop, Estimator, ZerothOrder
from covector.federated import (
    Client,
    KSeedClient,
    KSeedServer,
    Replica,
    RunHeader,
    Screen,
    Server,
    SketchClient,
    SketchServer,
)
from covector.finetune.federation import Federation
from covector.finetune.privacy import noise_of
from covector.finetune.settings import FEDERATED, Settings
from covector.gradients import SeedPool, SketchPool
from covector.gradients.journal import Journal
from covector.random import derive

__all__ = ["FEDERATED", "make_clients", "make_header", "make_server", "resume_server"]


def pool_of(settings: Settings) -> SeedPool | SketchPool:
    """The directions of a run; everybody derives them from its settings."""
    kind = SeedPool if settings.method.startswith("kseed") else SketchPool
    return kind(derive(settings.seed, "pool"), settings.seeds)


def make_header(settings: Settings, replica: Replica) -> RunHeader:
    """The run header of a federated method.

    Clients weigh by their number of examples, but all the same where they add noise: the number would leave in
    the clear.
    """
    pool = pool_of(settings)
    common: dict[str, Any] = {
        "weighting": "equal" if settings.dp_noise else "examples",
        "local_steps": settings.local_steps,
        "eps": settings.eps,
        "rounds": settings.rounds,
        "schedule": settings.schedule,
        "key": derive(settings.seed, "run"),
    }
    if isinstance(pool, SeedPool):
        return RunHeader.kseed(replica.theta0, pool, settings.lr, settings.wire, method=settings.method, **common)
    step = "adam" if settings.method == "sketch" else "sgd"
    return RunHeader.sketch(replica.theta0, pool, settings.lr, step, **common)


def make_server(settings: Settings, header: RunHeader, journal: Journal | None) -> Server:
    """The server of a federated method; with a journal that holds a run, it goes on there."""
    kind = SketchServer if settings.method.startswith("sketch") else KSeedServer
    screen = Screen(settings.screen_bound or None, settings.screen_policy)
    return kind(header, journal, clients_per_round=settings.clients, screen=screen, late=settings.late)


def resume_server(journal: Journal) -> Server:
    """The server whose run is in a journal, of whatever method.

    Raises:
        CorruptionError: the journal does not begin with a run header.
    """
    first = next(journal.records(), (0, b""))
    header = RunHeader.from_bytes(first[1])
    kind = SketchServer if header.method == "sketch" else KSeedServer
    return kind.resume(journal)


def make_clients(
    settings: Settings, replica: Replica, federation: Federation, header: RunHeader | None = None
) -> dict[str, Client]:
    """One client for each of the federation's, sharing the replica of this process.

    Args:
        settings: method, data and privacy.
        replica: the model.
        federation: the clients' data.
        header: the run; ``None`` waits for the server's first message to bring it.
    """
    pool = pool_of(settings)
    clients: dict[str, Client] = {}
    for name in federation.clients:
        batches = federation.batches(name, settings.batch_size, settings.seed)
        count, noise = len(federation.train[name]), noise_of(settings)
        if isinstance(pool, SketchPool):
            estimator = _estimator(settings, pool)
            clients[name] = SketchClient(replica, batches, estimator, header, examples=count, privacy=noise)
        else:
            clients[name] = KSeedClient(replica, batches, header, examples=count, privacy=noise)
    return clients


def _estimator(settings: Settings, pool: SketchPool) -> Estimator:
    if settings.method == "sketch":
        return Backprop(pool, nonfinite="skip")
    return ZerothOrder(directions=pool, eps=settings.eps, nonfinite="skip")
