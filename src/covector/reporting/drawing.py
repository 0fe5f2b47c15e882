"""Drawings as SVG text, to stand inside a page."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "svg"]

COLORS = ("#0b6e99", "#d1495b", "#66a182", "#edae49", "#7b5ea7", "#5c677d", "#2e4057")


def svg(draw: Callable[[Axes], None], width: float = 6.4, height: float = 3.6) -> str:
    """What ``draw`` draws on a pair of axes, as an ``<svg>`` element.

    Args:
        draw: draws on the axes it is given.
        width: in inches.
        height: in inches.

    >>> svg(lambda axes: None).startswith("<svg")
    True
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    draw(axes)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
