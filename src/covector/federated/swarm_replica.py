"""Replica: one peer's copy of the swarm's state, a set of contributions summed in a ledger.

The state is a function of the *set* of contributions: each one fixes the integers it adds by itself (its codes,
its scale and its n), integer adds commute, and a contribution counts once because those of one origin form a
chain that the clock follows. So two replicas with equal clocks have equal ledgers, whatever the order, the
duplication or the route of the messages. That is all a swarm has to keep; everything else is about speed.

A contribution to an iteration that is still open waits in the log: what is evaluated in iteration i sees the
closed iterations before it and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from covector.errors import CorruptionError, MismatchError
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_messages import Contribution, decode
from covector.gradients import Ledger

__all__ = ["Replica", "origin_name", "read_contribution"]


def origin_name(origin: int) -> str:
    """How a peer is called in the ledger's clock.

    >>> origin_name(10)
    '000000000000000a'
    """
    return f"{origin:016x}"


class Replica:
    """Ledger, clock and recent log of one peer.

    Args:
        header: the run.

    >>> from covector.gradients import SketchPool
    >>> replica = Replica(SwarmHeader("0" * 64, SketchPool(1, 16), lr=0.5))
    >>> replica.add(Contribution(origin=7, iteration=0, previous=-1, total=1, exponent=0, codes=b"@"))
    'new'
    >>> replica.close(0); replica.clock
    {7: 0}
    """

    def __init__(self, header: SwarmHeader) -> None:
        self.header = header
        self.ledger = header.ledger()
        self.iteration = 0
        self._log: dict[int, list[Contribution]] = {}
        self._sizes = 0

    @property
    def clock(self) -> dict[int, int]:
        """Last known iteration of every origin, those that still wait in the log included."""
        clock = {int(name, 16): last for name, last in self.ledger.clock.items()}
        clock.update({origin: entries[-1].iteration for origin, entries in self._log.items() if entries})
        return clock

    def known(self, origin: int) -> int:
        """Iteration of the last contribution known of ``origin``, -1 for none."""
        entries = self._log.get(origin)
        return entries[-1].iteration if entries else self.ledger.clock.get(origin_name(origin), -1)

    def add(self, contribution: Contribution) -> str:
        """Take a contribution in.

        Returns:
            ``"new"``; ``"known"`` (a replay: ignored); ``"conflict"`` (another one of this origin and iteration is
            in: ignored); or ``"early"`` (the one before it is missing: ignored, to be asked for).

        Raises:
            MismatchError: its scale, its size or one origin more is beyond what the header allows.
        """
        self.check([contribution])
        last = self.known(contribution.origin)
        if contribution.iteration <= last:
            return "conflict" if self._differs(contribution) else "known"
        if contribution.previous != last:
            return "early"
        if contribution.iteration < self.iteration:
            self._apply(contribution)
        self._log.setdefault(contribution.origin, []).append(contribution)
        self._sizes += self._size(contribution)
        return "new"

    def check(self, contributions: Sequence[Contribution]) -> None:
        """Refuse contributions that the header does not allow, whatever is known here.

        Raises:
            MismatchError: a scale, a size or a number of peers beyond the header's bounds.
        """
        header = self.header
        for entry in contributions:
            if not header.allows(entry.total, entry.exponent):
                raise MismatchError(
                    f"scale 2**{entry.exponent} for {entry.total} scalars from peer {origin_name(entry.origin)}: "
                    "beyond what this run allows"
                )
            if len(entry.codes) > header.most_samples or len(entry.admitted) > header.most_peers:
                raise MismatchError(
                    f"{len(entry.codes)} scalars and {len(entry.admitted)} newcomers in one contribution; this run "
                    f"allows {header.most_samples} and {header.most_peers}"
                )
        unknown = {entry.origin for entry in contributions if self.known(entry.origin) < 0}
        if unknown and len(unknown) + len(self.clock) > header.most_peers:
            raise MismatchError(f"more peers than this run allows over its life ({header.most_peers})")

    def close(self, iteration: int) -> None:
        """Apply what waits for iterations up to ``iteration``; the next one is open then."""
        for origin, entries in sorted(self._log.items()):
            applied = self.ledger.clock.get(origin_name(origin), -1)
            for contribution in entries:
                if applied < contribution.iteration <= iteration:
                    self._apply(contribution)
        self.iteration = max(self.iteration, iteration + 1)

    def of_iteration(self, iteration: int) -> list[Contribution]:
        """The contributions to ``iteration`` that are in the log."""
        return [entry for _, entries in sorted(self._log.items()) for entry in entries if entry.iteration == iteration]

    def beyond(self, clock: dict[int, int]) -> list[Contribution] | None:
        """What somebody with ``clock`` lacks, in an order that can be added; None where the log ends too soon."""
        lacking: list[Contribution] = []
        for origin, last in self.clock.items():
            seen = clock.get(origin, -1)
            if last <= seen:
                continue
            entries = [entry for entry in self._log.get(origin, []) if entry.iteration > seen]
            if not entries or entries[0].previous != seen:
                return None
            lacking += entries
        return sorted(lacking, key=lambda entry: (entry.iteration, entry.origin))

    def waiting(self) -> list[Contribution]:
        """Contributions that are known and not applied yet."""
        entries = [entry for kept in self._log.values() for entry in kept if entry.iteration >= self.iteration]
        return sorted(entries, key=lambda entry: (entry.iteration, entry.origin))

    def adopt(self, data: bytes, iteration: int) -> str:
        """Take over somebody's ledger and add what it lacks of this one.

        Args:
            data: bytes of a :class:`~covector.gradients.Ledger`.
            iteration: the open iteration of who sent it.

        Returns:
            ``"adopted"``; ``"known"`` (nothing new in it); or ``"unbridgeable"``: each of the two has contributions
            that the other lacks and this replica's log no longer holds its own, so they cannot be joined.

        Raises:
            CorruptionError: bytes that do not decode.
            MismatchError: a ledger of another run.
        """
        theirs = Ledger.from_bytes(data, largest=self.header.pool.size)
        if theirs.pool != self.header.pool or theirs.quantum != self.header.quantum:
            raise MismatchError(f"{theirs!r} does not belong to this run: {self.ledger!r}")
        if len(theirs.clock) > self.header.most_peers:
            raise MismatchError(f"a ledger of {len(theirs.clock)} peers, this run allows {self.header.most_peers}")
        clock = _origins(theirs)
        if all(last <= self.known(origin) for origin, last in clock.items()):
            return "known"
        mine = self.beyond(clock)
        if mine is None:
            return "unbridgeable"
        joined = Replica(self.header)
        joined.ledger, joined.iteration = theirs, max(self.iteration, iteration)
        for contribution in mine:
            joined.add(contribution)
        joined.close(joined.iteration - 1)
        self.ledger, self.iteration = joined.ledger, joined.iteration
        self._log, self._sizes = joined._log, joined._sizes
        return "adopted"

    def forget(self, acknowledged: list[dict[int, int]], most_bytes: int) -> None:
        """Drop contributions that all of ``acknowledged`` have, oldest first, until the log is below ``most_bytes``.

        Args:
            acknowledged: clocks of those who must not be left behind, at least this replica's own.
            most_bytes: what may stay.
        """
        if self._sizes <= most_bytes:
            return
        floor = {origin: min(clock.get(origin, -1) for clock in acknowledged) for origin in self._log}
        oldest = sorted((entry.iteration, origin) for origin, entries in self._log.items() for entry in entries)
        for iteration, origin in oldest:
            entry = self._log[origin][0]
            if self._sizes <= most_bytes or iteration >= self.iteration:
                break
            if entry.iteration == iteration and iteration <= floor[origin]:
                self._log[origin].pop(0)
                self._sizes -= self._size(entry)

    def _differs(self, contribution: Contribution) -> bool:
        entries = self._log.get(contribution.origin, [])
        return any(entry.iteration == contribution.iteration and entry != contribution for entry in entries)

    def _apply(self, contribution: Contribution) -> None:
        ids = self.header.direction_ids(contribution.iteration, contribution.origin, len(contribution.codes))
        units = self.header.units(contribution.codes, contribution.total, contribution.exponent)
        self.ledger.apply(origin_name(contribution.origin), contribution.iteration, ids, units)

    def _size(self, contribution: Contribution) -> int:
        return len(contribution.to_bytes(self.header.tag))


def read_contribution(data: bytes, header: SwarmHeader) -> Contribution:
    """The contribution in ``data``.

    Raises:
        CorruptionError: not the bytes of a contribution.
    """
    message = decode(data, header.tag)
    if not isinstance(message, Contribution):
        raise CorruptionError(f"a {type(message).__name__} where a Contribution was expected")
    return message


def _origins(ledger: Ledger) -> dict[int, int]:
    clock = {}
    for name, last in ledger.clock.items():
        digits = len(name) == 16 and not set(name) - set("0123456789abcdef")
        if not digits or not 0 <= last < 1 << 31:
            raise CorruptionError(f"clock entry {name!r}: {last} does not name a peer and an iteration")
        clock[int(name, 16)] = last
    return clock
