"""Swarm: one byte per gradient, peer to peer, as a pure state machine (no socket, no thread, no clock of its own).

In every iteration each member measures the slopes of its samples along directions that everybody can derive,
sends them in one byte each, and everybody adds everybody's scalars to the same integer ledger::

    theta <- theta - (lr / sqrt(n)) sum_j rho_j z_j           n scalars in the iteration, over all members

What holds, and why:

1. *Equal clocks, equal bits.* The ledger is a function of the set of contributions (see
   :mod:`covector.federated.swarm_replica`), under any loss, duplication, delay and order of messages. A peer
   never issues two contributions for one iteration; a process that starts again takes a new origin.
2. *What one survivor has, all get.* Every peer reports its clock; who sees that somebody lacks something sends
   it, as contributions or, where that is smaller, as the whole ledger. So peers that can reach each other end
   with equal clocks.
3. *Equal checkpoints.* An iteration closes when all its members' contributions are in. A member that stays
   silent for ``silence`` seconds is suspected; the iteration closes without it only when every member that is
   not suspected reports that it suspects it too and has nothing more of it. Thus, as long as only peers that
   stopped are suspected, all survivors close each iteration with the same set, and the ledgers are equal after
   every iteration. Suspecting a peer that was only slow costs this and nothing else: its contributions are added
   when they come (1 and 2 still hold), and it is admitted again.
4. *Membership travels in contributions.* A newcomer is admitted, and a leaving member released, by a
   contribution to iteration i with effect from i + 1, so all members agree on whom they wait for.

The limit of 2: after a separation so long that the logs (``log_bytes``) no longer bridge it, the side that is
behind is :attr:`Peer.stranded` and has to join again as a newcomer.

Only integers have to agree: each slope is computed once, by one machine, at weights that may lag behind by late
contributions, and is then a fact that everybody adds. Peers trust each other: a checksum protects from accidents,
TLS with client certificates (:mod:`covector.federated.tcp`) from strangers.

Source: Zelikman et al., "Just one byte (per gradient)", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from covector.errors import ArgumentError, CorruptionError, MismatchError, ProtocolError
from covector.federated.swarm_header import OCTAVES
from covector.federated.swarm_messages import Contribution, Join, Message, Refusal, Report, Sync, decode
from covector.federated.swarm_replica import origin_name, read_contribution
from covector.federated.swarm_standing import MOST_TOTAL, Letter, Receipt, Standing
from covector.gradients import Gradient

__all__ = ["Letter", "Peer", "Receipt"]


class Peer(Standing):
    """One member of a swarm.

    Args:
        header: the run.
        origin: 64-bit number of this process; take another one after a restart.
        samples: scalars it will contribute to each iteration.
        founders: members of iteration 0, origin -> samples, the same for all of them; ``None`` for a newcomer.
        iterations: where the run ends; ``None`` goes on.
        timing: when to report and whom to suspect.
        log_bytes: contributions to keep beyond those that a reachable member may lack: how long a separation can
            be made good without a loss.

    Raises:
        ArgumentError: samples beyond the header's bound, an origin that is not 64 bits, or founders without this peer.

    >>> from covector.gradients import SketchPool
    >>> from covector.federated.swarm_header import SwarmHeader
    >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=16), lr=0.5)
    >>> peer = Peer(header, origin=1, samples=2, founders={1: 2})
    >>> peer.contribute([0.25, -1.0], now=0.0)
    >>> peer.iteration, peer.ready
    (1, True)
    """

    def directions(self) -> list[Gradient]:
        """The directions along which this peer measures its slopes in the open iteration."""
        return self.header.directions(self.iteration, self.origin, self.samples)

    def contribute(self, slopes: Sequence[float], now: float, leave: bool = False) -> None:
        """Send this peer's slopes for the open iteration and count them in.

        Args:
            slopes: one for each of :meth:`directions`; those that are not finite count as zero.
            now: seconds, of any clock that does not go back.
            leave: whether this is its last contribution.

        Raises:
            ProtocolError: it is not this peer's turn (see :attr:`ready`).
            ArgumentError: not ``samples`` slopes.
        """
        if not self.ready:
            raise ProtocolError(
                f"iteration {self.iteration}: peer {origin_name(self.origin)} has contributed already, is no member "
                "yet, or the run has ended; wait until .ready"
            )
        if len(slopes) != self.samples:
            raise ArgumentError("slopes", f"{len(slopes)} numbers", f"{self.samples}, one for each direction")
        values = torch.tensor(slopes, dtype=torch.float64)
        contribution = Contribution(
            origin=self.origin,
            iteration=self.iteration,
            previous=self.replica.known(self.origin),
            total=min(sum(self.members.values()), MOST_TOTAL),
            exponent=self._scale,
            codes=self.header.encode(values, self.iteration, self.origin, self._scale),
            leaving=leave,
            admitted=self.view.newcomers(),
        )
        self.replica.add(contribution)
        self.leaving = leave
        self.view.waits_since = now
        self._send(None, contribution)
        for newcomer in contribution.admitted:
            self._send_missing(newcomer, {})
        self._advance(now)

    def set_scale(self, exponent: int) -> None:
        """Choose ``2**exponent`` as the scale of the next contributions, within 8 octaves of the header's.

        >>> from covector.gradients import SketchPool
        >>> from covector.federated.swarm_header import SwarmHeader
        >>> peer = Peer(SwarmHeader("0" * 64, SketchPool(1, 16), lr=0.5), 1, 1, {1: 1})
        >>> peer.set_scale(-3)
        """
        low, high = self.header.scale_exponent - OCTAVES, self.header.scale_exponent + OCTAVES
        if not low <= exponent <= high:
            raise ArgumentError("exponent", exponent, f"a whole number from {low} to {high}")
        self._scale = exponent

    def receive(self, data: bytes, now: float) -> Receipt:
        """Take in one message; a message that is refused changes nothing.

        Returns:
            What became of it. Answers, if any, are in :meth:`drain`.
        """
        try:
            status = self._take_in(decode(data, self.header.tag), now)
        except (CorruptionError, MismatchError, ProtocolError) as error:
            return Receipt("refused", str(error))
        self._advance(now)
        return Receipt(status)

    def tick(self, now: float) -> None:
        """Let time pass: suspect who is silent, report, knock again. Call it several times per ``timing.report``."""
        if self.view.suspect_silent(self.replica, now):
            self._reported = float("-inf")
        self._advance(now)
        if now - self._reported < self.view.timing.report:
            return
        self._reported = now
        if self.members:
            self._send(None, self.report())
        if not self.joined and not self.leaving and not self.ended:
            self._send(None, Join(self.origin, self.samples, self.header.hash))

    def suspect(self, origin: int) -> None:
        """Say that ``origin`` cannot be reached: the transport saw its connection end for good."""
        if origin in self.members and origin != self.origin:
            self.view.suspects.add(origin)
            self._reported = float("-inf")

    def _take_in(self, message: Message, now: float) -> str:
        if isinstance(message, Contribution):
            return self._on_contribution(message, now)
        if isinstance(message, Report):
            return self._on_report(message, now)
        if isinstance(message, Sync):
            return self._on_sync(message, now)
        if isinstance(message, Join):
            return self._on_join(message, now)
        return self._on_refusal(message)

    def _on_contribution(self, message: Contribution, now: float) -> str:
        if not self.members:
            return "early"
        status = self.replica.add(message)
        self.view.hear(message.origin, now)
        if status == "conflict":
            raise ProtocolError(f"peer {origin_name(message.origin)} sent two contributions to {message.iteration}")
        if status == "early":
            self._send(message.origin, self.report())
        if status == "new":
            if message.origin not in self.members and not message.leaving:
                self.view.applicants[message.origin] = len(message.codes)
            self._note_late([message], now)
        return "applied" if status == "new" else status

    def _on_report(self, report: Report, now: float) -> str:
        if report.sender == self.origin or not self.members:
            return "known"
        clock = self.replica.clock
        before = self.view.reports.get(report.sender)
        if report.sender in self.members or report.sender in clock:
            self.view.hear(report.sender, now)
            self.view.reports[report.sender] = report
        if report.iteration == self.iteration and report.clock == clock and report.digest != self.report().digest:
            self.diverged = True
        behind = any(last > report.clock.get(origin, -1) for origin, last in clock.items())
        if behind or report.iteration + 1 < self.iteration:
            self._send_missing(report.sender, report.clock)
        if any(last > clock.get(origin, -1) for origin, last in report.clock.items()):
            self._send(report.sender, self.report())
        return "known" if report == before else "applied"

    def _on_sync(self, sync: Sync, now: float) -> str:
        contributions = [read_contribution(data, self.header) for data in sync.contributions]
        self.replica.check(contributions)
        if len(sync.members) > self.header.most_peers:
            raise MismatchError(f"{len(sync.members)} members; this run allows {self.header.most_peers}")
        before = self.iteration
        status = self.replica.adopt(sync.ledger, sync.iteration) if sync.ledger else "known"
        if status == "unbridgeable":
            # the side that is further goes on; the other one has to start again as a newcomer
            self.stranded = self.stranded or sync.iteration > before
            return "known"
        added = [entry for entry in contributions if self.replica.add(entry) == "new"]
        self._note_late(added, now)
        jumps = not self.members or sync.iteration > before + (status == "known")
        if jumps:
            self._jump(sync, now)
        return "applied" if added or jumps or status == "adopted" else "known"

    def _on_join(self, join: Join, now: float) -> str:
        if join.origin == self.origin or not self.joined:
            return "known"
        if join.header != self.header.hash:
            self._send(join.origin, Refusal(join.origin, "the header differs: another model, pool, seed or step size"))
            raise MismatchError(f"peer {origin_name(join.origin)} wants to join with another header")
        if self.ended or self._is_too_much(join):
            self._send(join.origin, Refusal(join.origin, "the run has ended, or allows no more peers or samples"))
            raise MismatchError(f"peer {origin_name(join.origin)} comes too late or exceeds the header's bounds")
        self.view.hear(join.origin, now)
        if join.origin in self.members:
            self._send_missing(join.origin, {})
            return "known"
        self.view.applicants[join.origin] = join.samples
        return "applied"

    def _on_refusal(self, message: Refusal) -> str:
        if message.receiver != self.origin or self.joined:
            return "known"
        self.refusal = message.reason
        return "applied"

    def _is_too_much(self, join: Join) -> bool:
        clock = self.replica.clock
        waiting = {**self.members, **self.view.applicants, join.origin: join.samples}
        unknown = join.origin not in clock and len(clock.keys() | waiting.keys()) > self.header.most_peers
        return unknown or join.samples > self.header.most_samples or sum(waiting.values()) > MOST_TOTAL
