"""The report of an inspection in one HTML file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covector.inspection.reading import number, read
from covector.landscape import Inspection
from covector.reporting import COLORS, environment, svg, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_report"]

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_LAYERS = 24


def write_report(
    found: Inspection, path: Path, *, name: str, settings: dict[str, Any], records: list[dict[str, float]] | None = None
) -> None:
    """Write the report of an inspection.

    Args:
        found: what :func:`covector.landscape.inspect` returned.
        path: an ``.html`` file.
        name: of what was looked at.
        settings: how, for the foot of the page.
        records: the measurements of a :class:`~covector.landscape.Watch` during training.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(Inspection(10, 64, 0.5, 0.1, top=(30.0,)), path, name="a model", settings={})
    >>> "sharpness" in path.read_text()
    True
    """
    figures = {}
    if found.density:
        figures["density"] = svg(lambda axes: _density(axes, found))
    if found.layers:
        shown = min(_LAYERS, len(found.layers))
        figures["layers"] = svg(lambda axes: _layers(axes, found), height=1.1 + 0.24 * shown)
    if records and len(records) > 1:
        figures["training"] = svg(lambda axes: _training(axes, records))
    values = {
        "name": name,
        "found": found,
        "rows": read(found),
        "cards": _cards(found),
        "figures": figures,
        "layers": sorted(found.layers.items(), key=lambda item: -abs(item[1].trace)),
        "settings": settings,
        "environment": environment(),
    }
    write_page(_TEMPLATE, values, path, {"number": number})


def _cards(found: Inspection) -> list[tuple[str, str]]:
    cards = []
    if found.sharpness is not None:
        cards.append((number(found.sharpness), "sharpness"))
    if found.stable_lr is not None and math.isfinite(found.stable_lr):
        cards.append((number(found.stable_lr), "largest stable learning rate of gradient descent"))
    if found.effective_rank is not None:
        cards.append((number(found.effective_rank), f"effective rank of {found.parameters:,} parameters"))
    if found.batch_size is not None:
        cards.append((f"{found.batch_size:,}", "suggested batch size"))
    return cards


def _density(axes: Axes, found: Inspection) -> None:
    """On a logarithmic axis, for most eigenvalues lie near zero and the interesting ones do not."""
    floor = max(found.density) * 1e-6
    low = [max(d - 2 * e, floor) for d, e in zip(found.density, found.density_error, strict=True)]
    high = [max(d + 2 * e, floor) for d, e in zip(found.density, found.density_error, strict=True)]
    axes.fill_between(found.grid, low, high, color=COLORS[0], alpha=0.2, lw=0)
    axes.plot(found.grid, [max(d, floor) for d in found.density], color=COLORS[0], lw=1.6)
    for value in (*found.top, *([found.bottom] if found.bottom is not None else [])):
        axes.axvline(value, color=COLORS[1], lw=0.9, ls="--")
    if found.lr is not None and found.sharpness is not None:
        edge = 2 * (1 + found.momentum) / found.lr
        if edge <= 1.6 * max(found.grid):
            axes.axvline(edge, color=COLORS[5], lw=1.2, ls=":")
            axes.annotate(
                "edge of stability", (edge, max(found.density)), rotation=90, va="top", ha="right", fontsize=8,
                color=COLORS[5],
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set(xlabel="eigenvalue (dashed: found one by one)", ylabel="density")


def _layers(axes: Axes, found: Inspection) -> None:
    ranked = sorted(found.layers.items(), key=lambda item: -abs(item[1].trace))[:_LAYERS]
    names = [name for name, _ in ranked]
    traces = [layer.trace for _, layer in ranked]
    errors = [2 * layer.error for _, layer in ranked]
    axes.barh(range(len(names)), traces, xerr=errors, color=COLORS[0], alpha=0.8, error_kw={"lw": 0.8})
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("trace of the tensor's block, two standard errors")


def _short(name: str) -> str:
    return name if len(name) <= 34 else "..." + name[-31:]


def _training(axes: Axes, records: list[dict[str, float]]) -> None:
    steps = [record["step"] for record in records]
    axes.plot(steps, [record["sharpness"] for record in records], marker="o", ms=3, color=COLORS[0], label="sharpness")
    ratios = [record.get("sharpness_ratio") for record in records]
    edges = [record["sharpness"] / ratio for record, ratio in zip(records, ratios, strict=True) if ratio]
    if len(edges) == len(steps):
        axes.plot(steps, edges, ls=":", color=COLORS[5], label="edge of stability")
    axes.set(xlabel="step", ylabel="largest eigenvalue")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
