"""The federated methods: header, server and clients for each name, over one shared replica."""

from __future__ import annotations

from covector.estimators import Backprop, Estimator, ZerothOrder
from covector.federated import (
    Client,
    GaussianNoise,
    KSeedClient,
    KSeedServer,
    Replica,
    RunHeader,
    Server,
    SketchClient,
    SketchServer,
)
from covector.finetune.federation import Federation
from covector.finetune.settings import Settings
from covector.gradients import SeedPool, SketchPool
from covector.gradients.journal import Journal
from covector.random import derive

__all__ = ["FEDERATED", "make_clients", "make_header", "make_server", "resume_server"]

FEDERATED = ("sketch", "sketch-zo", "kseed", "kseed-pro")


def make_header(settings: Settings, replica: Replica) -> RunHeader:
    """The run header of a federated method."""
    key = derive(settings.seed, "pool")
    common = {
        "local_steps": settings.local_steps,
        "eps": settings.eps,
        "rounds": settings.rounds,
        "key": derive(settings.seed, "run"),
    }
    if settings.method in ("kseed", "kseed-pro"):
        pool = SeedPool(key, settings.seeds)
        return RunHeader.kseed(
            replica.theta0, pool, settings.lr, settings.wire, method=settings.method, weighting="examples", **common
        )
    step = "adam" if settings.method == "sketch" else "sgd"
    sketch = SketchPool(key, settings.seeds)
    return RunHeader.sketch(replica.theta0, sketch, settings.lr, step, weighting="examples", **common)


def make_server(settings: Settings, header: RunHeader, journal: Journal | None) -> Server:
    """The server of a federated method; with a journal that holds a run, it goes on there."""
    kind = SketchServer if settings.method.startswith("sketch") else KSeedServer
    return kind(header, journal, clients_per_round=settings.clients)


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
    settings: Settings,
    header: RunHeader,
    replica: Replica,
    federation: Federation,
    privacy: GaussianNoise | None = None,
) -> dict[str, Client]:
    """One client for each of the federation's, sharing the replica of this process."""
    clients: dict[str, Client] = {}
    for name in federation.clients:
        batches = federation.batches(name, settings.batch_size, settings.seed)
        count = len(federation.train[name])
        if settings.method.startswith("kseed"):
            clients[name] = KSeedClient(replica, batches, header, examples=count, privacy=privacy)
        else:
            estimator = _estimator(settings, header)
            clients[name] = SketchClient(replica, batches, estimator, header, examples=count, privacy=privacy)
    return clients


def _estimator(settings: Settings, header: RunHeader) -> Estimator:
    assert isinstance(header.pool, SketchPool)
    if settings.method == "sketch":
        return Backprop(header.pool, nonfinite="skip")
    return ZerothOrder(directions=header.pool, eps=header.eps, nonfinite="skip")
