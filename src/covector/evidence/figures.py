"""One look for the figures of all experiments, drawn without touching matplotlib's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "figure"]

# Okabe and Ito's palette (2008): told apart by color-blind readers, legible on white
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@contextmanager
def figure(
    path: Path, title: str = "", x: str = "", y: str = "", size: tuple[float, float] = (6.4, 3.8)
) -> Iterator[Axes]:
    """Draw on one pair of axes and save the result when the block ends.

    Args:
        path: where to save; the suffix chooses the format (``.svg`` is sharp at every size). The file's stem
            becomes the figure's caption on the evidence site: name it by what it shows.
        title: title above the axes.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        size: width and height in inches.

    Yields:
        The axes. A legend is added when anything that was drawn has a label: beside the axes, with the figure as much
        wider, where there is no room for it between the curves. Ticks of steps are whole, those of a logarithmic axis
        that spans little are plain numbers.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "loss-by-step.svg"
    >>> with figure(path, title="Loss", x="step", y="loss") as axes:
    ...     _ = axes.plot([0, 1, 2], [3.0, 2.0, 1.5], label="FedKSeed")
    >>> path.stat().st_size > 1000
    True
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a fixed salt and no date make the same drawing the same bytes
    with rc_context(
        {"axes.prop_cycle": _cycle(), "svg.hashsalt": "covector", "font.size": 10, "axes.formatter.useoffset": False}
    ):
        canvas = FigureCanvasAgg(Figure(figsize=size, layout="constrained"))
        axes = canvas.figure.add_subplot(title=title, xlabel=x, ylabel=y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        yield axes
        finish(axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        canvas.figure.savefig(path, dpi=144, metadata=metadata)


def finish(axes: Axes) -> None:
    """Ticks and the legend, by what was drawn."""
    readable_ticks(axes)
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(framealpha=0.9, edgecolor="none")
    drawn = axes.figure
    drawn.draw_without_rendering()  # type: ignore[union-attr]  # a figure, not a subfigure
    box = legend.get_window_extent().padded(4)
    if any(line.get_transform().transform_path(line.get_path()).intersects_bbox(box, False) for line in axes.lines):
        legend.remove()
        drawn.set_size_inches(drawn.get_figwidth() + box.width / drawn.dpi, drawn.get_figheight())  # type: ignore[union-attr]
        drawn.legend(loc="outside right upper", edgecolor="none")


def readable_ticks(axes: Axes) -> None:
    """Whole numbers on an axis of whole numbers, plain ones on a logarithmic axis of less than two decades."""
    from matplotlib import ticker

    for axis, data in ((axes.xaxis, "get_xdata"), (axes.yaxis, "get_ydata")):
        low, high = sorted(axis.get_view_interval())
        locator = axis.get_major_locator()
        plain = axis.get_scale() == "log" and getattr(axis.get_transform(), "base", 10) == 10 and high < 100 * low
        if plain and isinstance(locator, ticker.LogLocator):
            axis.set_major_locator(ticker.MaxNLocator(5) if high < 4 * low else ticker.LogLocator(subs=(1, 2, 5)))
        if plain or axis.get_scale() == "symlog":
            axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.set_minor_formatter(ticker.NullFormatter())
        elif isinstance(locator, ticker.AutoLocator):
            values = [float(v) for line in axes.lines for v in getattr(line, data)(orig=False)]
            if values and all(value.is_integer() for value in values):
                axis.set_major_locator(
                    ticker.MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
                )


def _cycle() -> object:
    from cycler import cycler

    return cycler(color=COLORS)
