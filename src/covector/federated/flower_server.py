"""The server half of the Flower engine: a Covector server's rounds over a Grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from covector.errors import ArgumentError, CorruptionError, ProtocolError
from covector.federated.flower_client import ERROR, MESSAGE, NAME
from covector.federated.flower_mail import GridMail, Letter, Mail, Reply, entry
from covector.federated.inprocess import RoundMetrics, Run, Traffic
from covector.federated.messages import GRADS, Grads
from covector.federated.outcomes import Event, Verdict
from covector.federated.server import Server

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["GridRounds"]

_POLL_SECONDS = 0.2


class GridRounds:
    """Runs a server's rounds with the nodes of a Flower Grid.

    Every message is a ConfigRecord with one entry of bytes; no arrays, no metrics. Replies that come after their
    round was closed are still pulled and given to the server, which refuses or applies them as it was told.

    Args:
        grid: Flower's connection to the nodes, or mail that goes through a relay to it.
        server: fresh or resumed.
        clients: nodes to wait for before the first round.
        timeout: seconds after which a round is closed without those that did not answer.
        connect: seconds to wait for ``clients`` nodes.

    Raises:
        ArgumentError: clients below 1, or timeouts that are not positive.
    """

    def __init__(
        self, grid: Grid | Mail, server: Server, clients: int = 1, timeout: float = 3600.0, connect: float = 600.0
    ) -> None:
        if clients < 1:
            raise ArgumentError("clients", clients, "a whole number of at least 1")
        if not (timeout > 0 and connect > 0):
            raise ArgumentError("timeout", (timeout, connect), "positive seconds")
        self.mail = grid if isinstance(grid, Mail) else GridMail(grid)
        self.server = server
        self.clients = clients
        self.timeout = timeout
        self.connect = connect
        self.nodes: dict[str, int] = {}
        self._asked: set[int] = set()
        self._waiting: dict[str, tuple[str, int]] = {}  # message id -> (client or "", round)
        self._traffic: dict[str, Traffic] = {}
        self._losses: dict[str, float] = {}

    def run(self, rounds: int, callbacks: Iterable[Callable[[RoundMetrics], None]] = ()) -> Run:
        """Run to the end of round ``rounds``; a resumed server goes on where it stands.

        Raises:
            ProtocolError: not enough nodes connected in time.
        """
        self._connect()
        result, listeners = Run(), list(callbacks)
        while self.server.round < rounds:
            metrics = self._round()
            result.rounds.append(metrics)
            for listener in listeners:
                listener(metrics)
        return result

    def _connect(self) -> None:
        end = time.monotonic() + self.connect
        while len(self._present()) < self.clients:
            if time.monotonic() > end:
                raise ProtocolError(
                    f"{len(self.nodes)} of {self.clients} clients connected within {self.connect} s; start more "
                    "SuperNodes or lower clients"
                )
            self._greet()
            self._pull()
            time.sleep(_POLL_SECONDS)

    def _round(self) -> RoundMetrics:
        server, number, seen = self.server, self.server.round + 1, len(self.server.report)
        self._traffic, self._losses = {}, {}
        self._greet()
        self._pull()
        self._send(server.open_round(self._present() or list(self.nodes)), number)
        end = time.monotonic() + self.timeout
        while any(round == number and name for name, round in self._waiting.values()) and time.monotonic() < end:
            self._pull()
            time.sleep(_POLL_SECONDS)
        commit = server.close_round()
        return RoundMetrics(number, self._losses, self._traffic, len(commit), server.report[seen:])

    def _present(self) -> list[str]:
        online = set(self.mail.nodes())
        return sorted(name for name, node in self.nodes.items() if node in online)

    def _greet(self) -> None:
        """Ask nodes that were not seen before for their names."""
        fresh = set(self.mail.nodes()) - self._asked
        self._asked |= fresh
        self._post([(Letter(node, "query", {NAME: ""}), "") for node in sorted(fresh)], self.server.round)

    def _send(self, messages: dict[str, bytes], number: int) -> None:
        for name, data in messages.items():
            self._traffic.setdefault(name, Traffic()).down += len(data)
        letters = [(Letter(self.nodes[name], "train", {MESSAGE: data}), name) for name, data in messages.items()]
        self._post(letters, number)

    def _post(self, letters: list[tuple[Letter, str]], number: int) -> None:
        identities = self.mail.post([letter for letter, _ in letters])
        for identity, (_, name) in zip(identities, letters, strict=True):
            if identity:
                self._waiting[identity] = (name, number)

    def _pull(self) -> None:
        for reply in self.mail.collect(list(self._waiting)):
            name, number = self._waiting.pop(reply.letter, ("", -1))
            if number < 0:
                continue
            if name:
                self._take(name, number, reply)
            else:
                self._meet(reply)

    def _meet(self, reply: Reply) -> None:
        try:
            self.nodes[entry(reply.record, NAME, str)] = reply.node
        except CorruptionError:  # the node could not answer: ask again
            self._asked.discard(reply.node)

    def _take(self, name: str, number: int, reply: Reply) -> None:
        if reply.error:
            self._note(number, name, reply.error)
            return
        try:
            if ERROR in (reply.record or ()):
                self._note(number, name, entry(reply.record, ERROR, str))
                return
            data = entry(reply.record, MESSAGE, bytes)
        except CorruptionError as error:
            self._note(number, name, str(error))
            return
        self._traffic.setdefault(name, Traffic()).up += len(data)
        outcome = self.server.receive(name, data)
        if outcome.verdict is Verdict.ACCEPTED and data[:4] == GRADS:
            self._losses[name] = Grads.from_bytes(data, self.server.header).loss
        if outcome.reply is not None:
            self._send({name: outcome.reply}, number)

    def _note(self, number: int, name: str, detail: str) -> None:
        self.server.report.append(Event(number, name, Verdict.FAILED, detail))
