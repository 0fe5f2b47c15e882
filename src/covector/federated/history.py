"""History: what a server remembers of past rounds beside the ledger, all of it a function of the journal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from covector.federated.commit import SCALE_RANGE, Commit, Settings, factor
from covector.federated.header import RunHeader
from covector.federated.messages import state_bytes
from covector.federated.preference import Preference
from covector.federated.schedule import rate
from covector.federated.screen import RunningMedian
from covector.gradients import Ledger

__all__ = ["History"]


@dataclass(frozen=True)
class _Past:
    settings: Settings
    asked: frozenset[int]
    answered: frozenset[int]


class History:
    """Settings, participants and commits of past rounds; the running median; FedKSeed-Pro's preference.

    Args:
        header: the run.
        max_age: rounds whose settings are kept for late replies.
    """

    def __init__(self, header: RunHeader, max_age: int) -> None:
        self.header = header
        self.max_age = max_age
        self.median = RunningMedian()
        self.preference = Preference(header.pool.size) if header.method == "kseed-pro" else None
        self._past: dict[int, _Past] = {}
        self._commits: dict[int, tuple[Commit, int]] = {}

    def settings(self, round: int) -> tuple[Settings, bool]:
        """``(settings, whether the scale had to be bounded)`` of a round that opens."""
        header = self.header
        lr = rate(header, round)
        table = self.preference.table(header.ids == "derived") if self.preference is not None else None
        median = self.median.value
        if header.code != "byte" or median is None:
            return Settings(round, lr, 0, table), False
        wanted = median * abs(factor(header, Settings(round, lr)))
        step_units = int(min(max(wanted, SCALE_RANGE[0]), SCALE_RANGE[1]))
        return Settings(round, lr, step_units, table), not SCALE_RANGE[0] <= wanted <= SCALE_RANGE[1]

    def close(
        self,
        commit: Commit,
        asked: frozenset[int],
        answered: frozenset[int],
        late: frozenset[tuple[int, int]] = frozenset(),
    ) -> None:
        """Remember a committed round, who was asked and answered in it, and the late (client, round) it took in."""
        number = commit.settings.round
        for client, round in late:
            past = self._past[round]
            self._past[round] = replace(past, answered=past.answered | {client})
        self._past[number] = _Past(commit.settings, asked, answered)
        self._past.pop(number - self.max_age, None)
        self._commits[number] = commit, len(commit.payload(self.header))
        while sum(size for _, size in self._commits.values()) > 9 * self.header.pool.size + 4096:
            del self._commits[next(iter(self._commits))]

    def observe(self, ids: list[int], rho: Tensor, taken: Tensor) -> None:
        """Add the scalars of a client's reply to the preference."""
        if self.preference is not None:
            self.preference.observe([i for i, step in zip(ids, taken.tolist(), strict=True) if step], rho[taken])

    def remembers(self, round: int) -> bool:
        """Whether late replies to ``round`` can still be decoded."""
        return round in self._past

    def settings_of(self, round: int, current: Settings | None) -> Settings:
        """The settings of an open or past round."""
        return current if current is not None and current.round == round else self._past[round].settings

    def asked(self, client: int, round: int) -> bool:
        """Whether the client took part in a past round."""
        return round in self._past and client in self._past[round].asked

    def answered(self, client: int, round: int) -> bool:
        """Whether the client's reply to a past round is committed."""
        return round in self._past and client in self._past[round].answered

    def way(
        self, round: int, ledger: Ledger, answered: int | None
    ) -> tuple[int, Ledger] | list[tuple[Commit, bool]] | None:
        """What brings a client to ``ledger``, the state after ``round``: nothing, the log or a snapshot.

        Args:
            round: the last committed round.
            ledger: the state after it.
            answered: the last round the client answered, whose table and start it has; ``None`` if none.
        """
        have = answered - 1 if answered else 0
        if have == round:
            return None
        snapshot = (round, ledger)
        wanted = range(have + 1, round + 1)
        if self.header.ids == "explicit" or any(number not in self._commits for number in wanted):
            return snapshot
        log = [(self._commits[number][0], number == answered) for number in wanted]
        small = len(state_bytes(log, self.header)) < len(state_bytes(snapshot, self.header))
        return log if small else snapshot
