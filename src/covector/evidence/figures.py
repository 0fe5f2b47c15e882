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
        The axes. A legend is added when anything that was drawn has a label.

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
    with rc_context({"axes.prop_cycle": _cycle(), "svg.hashsalt": "covector", "font.size": 10}):
        canvas = FigureCanvasAgg(Figure(figsize=size, layout="constrained"))
        axes = canvas.figure.add_subplot(title=title, xlabel=x, ylabel=y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        yield axes
        if axes.get_legend_handles_labels()[0]:
            axes.legend(framealpha=0.9, edgecolor="none")  # readable where it must lie over what is drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        canvas.figure.savefig(path, dpi=144, metadata=metadata)


def _cycle() -> object:
    from cycler import cycler

    return cycler(color=COLORS)
