"""Who belongs to a swarm's open iteration, who is silent, and when all agree to go on without somebody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from covector.errors import ArgumentError
from covector.federated.swarm_messages import Contribution, Report
from covector.federated.swarm_replica import Replica

__all__ = ["Membership", "Timing"]


@dataclass(frozen=True)
class Timing:
    """When a peer speaks up, in seconds.

    Args:
        report: between two reports of what it has.
        silence: after which a member that was not heard is suspected; several times ``report``.
        patience: after which a member is suspected although it is heard, because it does not contribute; ``None``
            waits as long as it takes.
        start: how much longer to wait for founders that were never heard: processes start at different times.

    Raises:
        ArgumentError: ``silence`` not above ``report``.

    >>> Timing(report=1.0, silence=5.0).patience is None
    True
    """

    report: float = 1.0
    silence: float = 10.0
    patience: float | None = None
    start: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.report < self.silence:
            raise ArgumentError("silence", self.silence, f"more than report={self.report} seconds, best five times it")


@dataclass
class Membership:
    """One peer's view of the others.

    Args:
        origin: the peer itself.
        timing: when to suspect.
        members: who takes part in the open iteration: origin -> samples.
        most_peers: how many it may become.
        suspects: members that are silent, stuck or unreachable.
        applicants: newcomers to be admitted by this peer's next contribution: origin -> samples.
        reports: the last report of each.
    """

    origin: int
    timing: Timing
    members: dict[int, int]
    most_peers: int
    suspects: set[int] = field(default_factory=set)
    applicants: dict[int, int] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    waits_since: float = 0.0
    _heard: dict[int, float] = field(default_factory=dict)

    def others(self) -> list[int]:
        """The other members that are not suspected."""
        return [origin for origin in self.members if origin != self.origin and origin not in self.suspects]

    def missing(self, replica: Replica) -> set[int]:
        """Members whose contribution to the open iteration is not there."""
        return {origin for origin in self.members if replica.known(origin) < replica.iteration}

    def hear(self, origin: int, now: float) -> None:
        """Note a sign of life."""
        self._heard[origin] = now
        self.suspects.discard(origin)

    def suspect_silent(self, replica: Replica, now: float) -> bool:
        """Suspect who is silent or, with ``patience``, who keeps a contribution waiting; returns whether it is news."""
        waiting = replica.known(self.origin) >= replica.iteration
        stuck = self.missing(replica) if waiting and self._impatient(now) else set()
        heard = {other: self._heard.setdefault(other, now + self.timing.start) for other in self.others()}
        silent = {other for other, last in heard.items() if now - last > self.timing.silence}
        news = (silent | stuck) - self.suspects
        self.suspects |= news
        return bool(news)

    def agreed(self, missing: set[int], replica: Replica) -> bool:
        """Whether all that are not suspected would close the open iteration without ``missing``.

        Each has to have said that it suspects them too (or to have closed the iteration already), and that it has
        nothing of them that is not here. A missing one that has itself gone past the iteration will never
        contribute to it: nobody needs to be asked about it.
        """
        missing = {origin for origin in missing if not self._has_passed(origin, replica.iteration)}
        if not missing <= self.suspects:
            return False
        for other in self.others():
            report = self.reports.get(other)
            if report is None or report.iteration < replica.iteration:
                return False
            if report.iteration == replica.iteration and not missing <= report.suspects:
                return False
            if any(report.clock.get(origin, -1) > replica.known(origin) for origin in missing):
                return False
        return True

    def drop(self, missing: set[int], samples: int) -> None:
        """Go on without them; where nobody is left, this peer goes on alone with ``samples``."""
        for origin in missing:
            del self.members[origin]
        self.suspects -= missing
        if not self.members:
            self.members[self.origin] = samples

    def change(self, contributions: Iterable[Contribution], now: float) -> None:
        """Let in and release whom these contributions say."""
        contributions = list(contributions)
        for contribution in contributions:
            for origin, samples in contribution.admitted.items():
                if len(self.members) < self.most_peers:
                    self.members[origin] = samples
                    self.hear(origin, now)
        for contribution in contributions:
            if contribution.leaving:
                self.members.pop(contribution.origin, None)
                self.suspects.discard(contribution.origin)

    def newcomers(self) -> dict[int, int]:
        """Hand out the applicants that are not members yet."""
        admitted = {origin: samples for origin, samples in self.applicants.items() if origin not in self.members}
        self.applicants.clear()
        return admitted

    def clocks(self) -> list[dict[int, int]]:
        """What each other member that is not suspected is known to have."""
        return [self.reports[other].clock if other in self.reports else {} for other in self.others()]

    def _has_passed(self, origin: int, iteration: int) -> bool:
        report = self.reports.get(origin)
        return report is not None and report.iteration > iteration and report.clock.get(origin, -1) < iteration

    def _impatient(self, now: float) -> bool:
        return self.timing.patience is not None and now - self.waits_since > self.timing.patience
