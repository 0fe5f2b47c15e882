"""The report of a comparison: the ranking and its curves in one HTML file."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covector.compare.ranking import Row
from covector.reporting import COLORS, environment, svg, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from covector.compare.run import Comparison

__all__ = ["write_report"]

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_STYLES = ("-", "--", ":", "-.")


def write_report(comparison: Comparison, path: Path) -> None:
    """Write the report of a comparison.

    Args:
        comparison: what :func:`covector.compare.compare` returned.
        path: an ``.html`` file.
    """
    rows = comparison.rows
    ranked = [row for row in rows if math.isfinite(row.loss)]
    values = {
        "rows": rows,
        "settings": comparison.settings.to_dict(),
        "interrupted": comparison.interrupted,
        "environment": environment(),
        "figures": {
            "steps": svg(lambda axes: _curves(axes, ranked, seconds=False)),
            "seconds": svg(lambda axes: _curves(axes, ranked, seconds=True)),
            "rates": svg(lambda axes: _rates(axes, rows)),
            "intervals": svg(lambda axes: _intervals(axes, ranked), height=1.2 + 0.32 * max(1, len(ranked))),
        },
    }
    write_page(_TEMPLATE, values, path, {"finite": math.isfinite})


def _look(place: int) -> dict[str, Any]:
    return {"color": COLORS[place % len(COLORS)], "ls": _STYLES[place // len(COLORS) % len(_STYLES)]}


def _curves(axes: Axes, rows: list[Row], seconds: bool) -> None:
    """Mean validation loss over the seeds, with the range of the seeds behind it."""
    for place, row in enumerate(rows):
        columns = list(zip(*(result.validation for result in row.runs.values()), strict=False))
        steps = [column[0][0] for column in columns]
        x = [step * row.step_seconds for step in steps] if seconds else steps
        losses = [[value for _, value in column] for column in columns]
        axes.plot(x, [statistics.fmean(values) for values in losses], lw=1.6, label=row.optimizer, **_look(place))
        axes.fill_between(x, list(map(min, losses)), list(map(max, losses)), color=_look(place)["color"], alpha=0.12)
    axes.set(xlabel="seconds of one core" if seconds else "step", ylabel="validation loss")
    if rows:
        axes.legend(frameon=False, fontsize=8)


def _rates(axes: Axes, rows: list[Row]) -> None:
    """Validation loss by learning rate: how much the choice matters. What diverged is left out."""
    for place, row in enumerate(rows):
        points = sorted((lr, loss) for lr, loss in row.tuning.items() if math.isfinite(loss))
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1.2, label=row.optimizer, **_look(place))
    finite = sorted(loss for row in rows for loss in row.tuning.values() if math.isfinite(loss))
    if finite:
        axes.set_xscale("log", base=2)
        low, high = finite[0], finite[len(finite) * 3 // 4]
        axes.set_ylim(low - 0.05 * (high - low + 1e-9), high + 0.3 * (high - low + 1e-9))
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="learning rate", ylabel="validation loss (the worst quarter is cut)")


def _intervals(axes: Axes, rows: list[Row]) -> None:
    """The mean of each optimizer, its interval and its seeds."""
    for place, row in enumerate(rows):
        color = _look(place)["color"]
        if math.isfinite(row.low):
            axes.plot([row.low, row.high], [place, place], color=color, lw=3, alpha=0.35, solid_capstyle="butt")
        axes.plot(list(row.seeds.values()), [place] * len(row.seeds), "o", color=color, ms=3)
        axes.plot([row.loss], [place], "|", color=color, ms=14, mew=2)
    axes.set_yticks(range(len(rows)), [row.optimizer for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("validation loss: seeds, mean, 95 % interval")
