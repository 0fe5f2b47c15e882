"""Figures of the report: losses, quality against bytes and time, bytes a round, scores by client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covector.reporting import COLORS, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from covector.finetune.outputs import Outcome
    from covector.finetune.run import MethodResult

__all__ = ["bytes_figure", "losses_figure", "quality_figure", "scores_figure"]


def losses_figure(result: MethodResult) -> str:
    """Training loss of each client by round, and their mean."""

    def draw(axes: Axes) -> None:
        rounds = [record for record in result.records if record.losses]
        clients = sorted({client for record in rounds for client in record.losses})
        for color, client in zip(COLORS[1:] * 9, clients, strict=False):
            points = [(r.round, r.losses[client]) for r in rounds if client in r.losses]
            axes.plot(*zip(*points, strict=True), color=color, lw=1, alpha=0.75, label=client)
        axes.plot([r.round for r in rounds], [r.loss for r in rounds], color="black", lw=2, label="mean")
        axes.set(xlabel="round", ylabel="training loss (nats)")
        axes.legend(frameon=False, fontsize=8, ncols=2)

    return svg(draw)


def quality_figure(outcome: Outcome, against: str) -> str:
    """Score on the validation sample against bytes a client moved, or against seconds."""

    def draw(axes: Axes) -> None:
        for color, (name, result) in zip(COLORS, outcome.results.items(), strict=False):
            xs, ys, moved = [], [], 0.0
            for record in result.records:
                moved += record.bytes / max(1, len(record.up))
                if record.validation is not None:
                    xs.append(max(moved, 1.0) / 1024 if against == "bytes" else record.seconds)
                    ys.append(record.validation)
            if against == "seconds" or moved > 0:
                axes.plot(xs, ys, "o-", color=color, ms=3, label=name)
        metric = outcome.base.overall.metric
        if against == "bytes":
            axes.set_xscale("log")
            axes.set_xlabel("KB moved by a client so far (both ways, log scale)")
        else:
            axes.set_xlabel("seconds of training")
        axes.set_ylabel(f"{metric} on the validation sample")
        axes.legend(frameon=False, fontsize=8)

    return svg(draw)


def bytes_figure(outcome: Outcome) -> str:
    """Bytes a client moves in a round, against sending all parameters."""
    rows: list[tuple[str, float, str]] = [
        (name, r.bytes_up + r.bytes_down, COLORS[0]) for name, r in outcome.results.items() if r.bytes_up
    ]
    rows.append(("all parameters, fp32", 8.0 * outcome.parameters, "#9aa0a6"))

    def draw(axes: Axes) -> None:
        bars = axes.barh([row[0] for row in rows], [row[1] for row in rows], color=[row[2] for row in rows])
        axes.set_xscale("log")
        axes.set_xlim(right=max(row[1] for row in rows) * 30)
        axes.bar_label(bars, labels=[human_bytes(row[1]) for row in rows], padding=4, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("bytes a client moves in a round, both ways (log scale)")
        axes.grid(visible=False)

    return svg(draw, height=1.2 + 0.4 * len(rows))


def scores_figure(outcome: Outcome) -> str:
    """Test scores of each client, before and after, with intervals."""
    import numpy as np

    before, after = outcome.base.to_dict(), outcome.main.test.to_dict()
    names = list(after)

    def draw(axes: Axes) -> None:
        places = np.arange(len(names))
        for shift, rows, color, label in ((-0.2, before, "#c4c9cf", "before"), (0.2, after, COLORS[0], "after")):
            values = np.array([rows[name]["value"] for name in names])
            low, high = np.array([rows[name]["interval"] for name in names]).T
            spread = np.abs(np.stack([values - low, high - values]))
            axes.bar(places + shift, values, 0.38, color=color, label=label, yerr=spread, capsize=2, ecolor="#444")
        if outcome.calibrated is not None:
            axes.axhline(outcome.calibrated, color="#d1495b", ls="--", lw=1, label="before, threshold moved")
        axes.set_xticks(places, names)
        axes.set_ylabel(f"test {outcome.base.overall.metric}")
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        axes.grid(axis="x", visible=False)

    return svg(draw)


def human_bytes(count: float) -> str:
    """A number of bytes for people.

    >>> human_bytes(17988), human_bytes(512)
    ('18.0 KB', '512 B')
    """
    value, units = float(count), iter(("B", "KB", "MB", "GB", "TB"))
    unit: Any = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
