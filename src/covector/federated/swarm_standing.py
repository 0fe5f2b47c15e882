"""Standing: where a peer stands in the run, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covector.errors import ArgumentError
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_membership import Membership, Timing
from covector.federated.swarm_messages import Contribution, Message, Report, Sync
from covector.federated.swarm_replica import Replica

__all__ = ["Letter", "Receipt", "Standing"]

_DIGEST_BYTES = 8
MOST_TOTAL = 65535


@dataclass(frozen=True)
class Letter:
    """A message to send: to one peer, or to all (``receiver`` None)."""

    receiver: int | None
    data: bytes


@dataclass(frozen=True)
class Receipt:
    """What became of a message.

    Args:
        status: ``"applied"`` (it changed something), ``"known"`` (nothing new in it), ``"early"`` (what comes before
            it is missing and was asked for) or ``"refused"`` (not valid: nothing changed).
        reason: for refused ones, why.
    """

    status: str
    reason: str = ""


class Standing:
    """State and queries of a :class:`~covector.federated.swarm.Peer`; how iterations close."""

    def __init__(
        self,
        header: SwarmHeader,
        origin: int,
        samples: int,
        founders: dict[int, int] | None = None,
        iterations: int | None = None,
        timing: Timing | None = None,
        log_bytes: int = 1 << 20,
    ) -> None:
        if not 0 <= origin < 1 << 64:
            raise ArgumentError("origin", origin, "an unsigned 64-bit integer")
        if not 1 <= samples <= header.most_samples:
            raise ArgumentError("samples", samples, f"1 to the header's most_samples={header.most_samples}")
        if founders is not None and founders.get(origin) != samples:
            raise ArgumentError("founders", founders, f"this peer in it ({origin}: {samples}), or None for a newcomer")
        if sum((founders or {}).values()) > MOST_TOTAL:
            raise ArgumentError("founders", founders, f"at most {MOST_TOTAL} scalars an iteration in all")
        self.header = header
        self.origin = origin
        self.samples = samples
        self.iterations = iterations
        self.replica = Replica(header)
        self.view = Membership(origin, timing or Timing(), dict(founders or {}), header.most_peers)
        self.refusal: str | None = None
        self.diverged = False
        self.stranded = False
        self.leaving = False
        self.on_close: list[Callable[[], None]] = []
        self._log_bytes = log_bytes
        self._scale = header.scale_exponent
        self._outbox: list[Letter] = []
        self._reported = float("-inf")

    @property
    def iteration(self) -> int:
        """The open iteration: all before it are closed."""
        return self.replica.iteration

    @property
    def members(self) -> dict[int, int]:
        """Who takes part in the open iteration: origin -> samples."""
        return self.view.members

    @property
    def joined(self) -> bool:
        """Whether this peer is a member of the open iteration."""
        return self.origin in self.members

    @property
    def ended(self) -> bool:
        """Whether the run's last iteration is closed here."""
        return self.iterations is not None and self.iteration >= self.iterations

    @property
    def ready(self) -> bool:
        """Whether :meth:`contribute` is due."""
        return self.joined and not self.ended and self.replica.known(self.origin) < self.iteration

    @property
    def settled(self) -> bool:
        """Whether the run has ended here and every member that is not suspected has said so too, with equal clocks."""
        clock = self.replica.clock
        reports = [self.view.reports.get(other) for other in self.view.others()]
        return self.ended and all(r is not None and r.iteration >= self.iteration and r.clock == clock for r in reports)

    def report(self) -> Report:
        """What this peer has."""
        digest = bytes.fromhex(self.replica.ledger.digest())[:_DIGEST_BYTES]
        return Report(self.origin, self.iteration, digest, self.replica.clock, frozenset(self.view.suspects))

    def drain(self) -> list[Letter]:
        """The messages to send now; they are handed out once."""
        letters, self._outbox = self._outbox, []
        return letters

    def _note_late(self, contributions: list[Contribution], now: float) -> None:
        """Changes of membership in contributions to iterations that are closed here already."""
        if self.members:
            self.view.change((late for late in contributions if late.iteration < self.iteration), now)

    def _jump(self, sync: Sync, now: float) -> None:
        """Stand where the sender stands; contributions still lacking will be added as late ones."""
        self.view.members = dict(sync.members)
        self.view.waits_since = now
        if sync.iteration > self.iteration:
            self.replica.close(sync.iteration - 1)

    def _advance(self, now: float) -> None:
        """Close iterations for as long as all that belongs to them is in."""
        while self.members and not self.ended:
            missing = self.view.missing(self.replica)
            if missing and not self.view.agreed(missing, self.replica):
                return
            contributions = self.replica.of_iteration(self.iteration)
            self.replica.close(self.iteration)
            self.view.drop(missing, self.samples)
            self.view.change(contributions, now)
            self.view.waits_since = now
            for listener in self.on_close:
                listener()
            if self.ended:
                self._reported = float("-inf")
            self.replica.forget([*self.view.clocks(), self.replica.clock], self._log_bytes)

    def _send(self, receiver: int | None, message: Message) -> None:
        self._outbox.append(Letter(receiver, message.to_bytes(self.header.tag)))

    def _send_missing(self, receiver: int, clock: dict[int, int]) -> None:
        """Send what ``clock`` lacks: the log, or the ledger where that is smaller or the log does not reach back."""
        tag = self.header.tag
        lacking = self.replica.beyond(clock)
        log = None if lacking is None else [entry.to_bytes(tag) for entry in lacking]
        ledger = self.replica.ledger.to_bytes()
        if log is None or sum(map(len, log)) > len(ledger):
            log = [entry.to_bytes(tag) for entry in self.replica.waiting()]
            self._send(receiver, Sync(self.iteration, self.members, ledger, tuple(log)))
        else:
            self._send(receiver, Sync(self.iteration, self.members, b"", tuple(log)))
