"""From trials to a ranking: means over seeds with intervals, and paired differences to the best."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from covector.compare.trial import Result, Trial

__all__ = ["Row", "interval", "rank"]

# two-sided 95 % points of Student's distribution for 1 .. 30 degrees of freedom; 1.96 beyond
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's distribution; infinitely wide for a single value.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return -math.inf, math.inf
    freedom = len(values) - 1
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


@dataclass
class Row:
    """An optimizer in the ranking.

    Args:
        optimizer: its name.
        lr: the best learning rate, None where none was finite.
        loss: mean validation loss over the seeds; infinite where a seed diverged or none ran.
        low: lower end of the interval of the mean.
        high: upper end.
        behind: mean difference to the best optimizer, seed by seed, and its interval; None for the best.
        seeds: validation loss by seed.
        tuning: validation loss by learning rate.
        step_seconds: median over the seeds of the time of a step.
        optimizer_seconds: of the optimizer's part of it.
        state_bytes: bytes kept for each parameter.
        note: what a reader must know: divergence, an error, an open edge, an unfinished run.
        runs: the runs at the best learning rate, by seed.

    >>> Row("adamw").loss
    inf
    """

    optimizer: str
    lr: float | None = None
    loss: float = math.inf
    low: float = -math.inf
    high: float = math.inf
    behind: tuple[float, float, float] | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    tuning: dict[float, float] = field(default_factory=dict)
    step_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    state_bytes: float = 0.0
    note: str = ""
    runs: dict[int, Result] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values; None stands for infinite."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "runs"}
        return {name: _finite(value) for name, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rank(found: dict[str, list[tuple[Trial, Result]]], seeds: int, edges: dict[str, bool]) -> list[Row]:
    """The optimizers, best first; those that diverged or did not finish last.

    Args:
        found: the finished trials of each optimizer; seed 0 is tuning, the others are runs at the best rate.
        seeds: runs wanted at the best rate.
        edges: optimizers whose best learning rate is the smallest or largest that was tried.
    """
    rows = sorted((_row(name, trials, seeds, edges.get(name, False)) for name, trials in found.items()), key=_order)
    best = rows[0] if rows and math.isfinite(rows[0].loss) else None
    for row in rows:
        if best is None or row is best or not math.isfinite(row.loss):
            continue
        common = [row.seeds[seed] - best.seeds[seed] for seed in row.seeds if seed in best.seeds]
        if common:
            row.behind = statistics.fmean(common), *interval(common)
    return rows


def _order(row: Row) -> tuple[bool, float, float]:
    return math.isinf(row.loss), row.loss, min(row.tuning.values(), default=math.inf)


def _row(name: str, trials: list[tuple[Trial, Result]], seeds: int, at_edge: bool) -> Row:
    row = Row(name, tuning={t.lr: r.loss for t, r in trials if t.seed == 0})
    row.runs = {trial.seed: result for trial, result in trials if trial.seed > 0}
    row.seeds = {seed: result.loss for seed, result in sorted(row.runs.items())}
    finite = {lr: loss for lr, loss in row.tuning.items() if math.isfinite(loss)}
    row.lr = min(finite, key=finite.__getitem__) if finite else None
    notes = []
    if row.seeds:
        row.loss = statistics.fmean(row.seeds.values())
    if row.seeds and math.isfinite(row.loss):
        row.low, row.high = interval(list(row.seeds.values()))
        row.step_seconds = statistics.median(result.step_seconds for result in row.runs.values())
        row.optimizer_seconds = statistics.median(result.optimizer_seconds for result in row.runs.values())
        row.state_bytes = statistics.median(result.state_bytes for result in row.runs.values())
        if at_edge:
            notes.append("best rate at the edge of the budget")
    bad = sum(math.isinf(loss) for loss in row.seeds.values())
    errors = sorted({result.error for _, result in trials if result.error})
    if bad:
        notes.append(f"diverged for {bad} of {len(row.seeds)} seeds")
    if row.tuning and not finite:
        notes.append("failed" if errors else "diverged at every rate")
    if len(row.seeds) < seeds and (finite or not row.tuning):
        notes.append(f"unfinished: {len(row.seeds)} of {seeds} seeds")
    row.note = "; ".join([*notes, *errors])
    return row
