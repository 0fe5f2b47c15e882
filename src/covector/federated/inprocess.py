"""The embedded engine: server and clients in one process, everything between them as encoded bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from covector.errors import ArgumentError
from covector.federated.messages import GRADS, Grads
from covector.federated.outcomes import Event, Outcome, Verdict
from covector.federated.server import Server

__all__ = ["RoundMetrics", "Run", "Traffic", "run"]


class Handler(Protocol):
    """Anything that answers messages: a client."""

    def handle(self, data: bytes, /) -> bytes: ...


Fault = Callable[[Literal["down", "up"], int, str, bytes], Iterable[bytes]]


@dataclass
class Traffic:
    """Bytes of the messages of one client in one round."""

    up: int = 0
    down: int = 0


@dataclass(frozen=True)
class RoundMetrics:
    """What a round did.

    Args:
        round: its number.
        losses: mean training loss of each client that answered with numbers.
        traffic: bytes of each client.
        commit: size of the COMMIT message.
        events: lines that this round added to the report.
    """

    round: int
    losses: dict[str, float]
    traffic: dict[str, Traffic]
    commit: int
    events: list[Event]

    @property
    def loss(self) -> float:
        """Mean of the clients' losses, NaN if none answered."""
        return sum(self.losses.values()) / len(self.losses) if self.losses else float("nan")


@dataclass
class Run:
    """The metrics of all rounds of a call of :func:`run`."""

    rounds: list[RoundMetrics] = field(default_factory=list)


def run(
    server: Server,
    clients: Mapping[str, Handler],
    rounds: int,
    callbacks: Iterable[Callable[[RoundMetrics], None]] = (),
    faults: Fault | None = None,
) -> Run:
    """Run the server to the end of round ``rounds``; a resumed server goes on where it stands.

    A client that raises is reported as failed and the round goes on without it.

    Args:
        server: fresh or resumed.
        clients: by name.
        rounds: total number of rounds of the run, those before a resume included.
        callbacks: called with the metrics of every round.
        faults: for tests: ``faults("down" or "up", round, client, data)`` returns what is delivered instead of
            ``data``: nothing, changed bytes, or several messages.

    Returns:
        The metrics of the rounds that this call did.

    Raises:
        ArgumentError: no clients.

    >>> import torch
    >>> from covector import Objective, SeedPool
    >>> from covector.federated import KSeedClient, KSeedServer, RunHeader
    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> header = RunHeader.kseed(objective.params, SeedPool(1, 64), lr=1e-2, local_steps=5)
    >>> client = KSeedClient(objective, [(torch.ones(4, 2), torch.ones(4, 1))])
    >>> [metrics.round for metrics in run(KSeedServer(header), {"a": client}, rounds=2).rounds]
    [1, 2]
    """
    if not clients:
        raise ArgumentError("clients", clients, "at least one client")
    result = Run()
    listeners = list(callbacks)
    while server.round < rounds:
        metrics = _one_round(server, clients, faults or (lambda way, round, client, data: [data]))
        result.rounds.append(metrics)
        for listener in listeners:
            listener(metrics)
    return result


def _one_round(server: Server, clients: Mapping[str, Handler], faults: Fault) -> RoundMetrics:
    seen, number = len(server.report), server.round + 1
    traffic: dict[str, Traffic] = {}
    losses: dict[str, float] = {}
    for name, message in server.open_round(list(clients)).items():
        traffic[name] = Traffic()
        again = _exchange(server, number, name, clients[name], message, faults, traffic[name], losses)
        if again is not None:  # the client lacked the state and was sent it
            _exchange(server, number, name, clients[name], again, faults, traffic[name], losses)
    commit = server.close_round()
    return RoundMetrics(number, losses, traffic, len(commit), server.report[seen:])


def _exchange(
    server: Server,
    round: int,
    name: str,
    client: Handler,
    message: bytes,
    faults: Fault,
    traffic: Traffic,
    losses: dict[str, float],
) -> bytes | None:
    """Deliver one message and the answers to it; returns what the server wants to send next, if anything."""
    further = None
    for delivered in faults("down", round, name, message):
        traffic.down += len(delivered)
        try:
            answer = client.handle(delivered)
        except Exception as error:
            server.report.append(Event(round, name, Verdict.FAILED, f"{type(error).__name__}: {error}"))
            continue
        for data in faults("up", round, name, answer):
            traffic.up += len(data)
            outcome: Outcome = server.receive(name, data)
            if outcome.verdict is Verdict.ACCEPTED and data[:4] == GRADS:
                losses[name] = Grads.from_bytes(data, server.header).loss
            further = outcome.reply or further
    return further
