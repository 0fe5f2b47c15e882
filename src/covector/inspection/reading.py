"""What an inspection's numbers say: each with a line that tells what it means for training."""

from __future__ import annotations

import math
from typing import NamedTuple

from covector.landscape import Inspection

__all__ = ["Reading", "read"]


class Reading(NamedTuple):
    """A number and what it means.

    Attributes:
        name: of the quantity.
        value: as text.
        meaning: one line.
    """

    name: str
    value: str
    meaning: str


def read(found: Inspection) -> list[Reading]:
    """The numbers that were measured, most telling first.

    >>> from covector.landscape import Inspection
    >>> for row in read(Inspection(10, 64, 0.5, 0.1, lr=0.1, top=(30.0,)))[1:3]:
    ...     print(row.name, "=", row.value)
    sharpness = 30
    largest stable lr = 0.0667
    """
    rows = [
        Reading(
            "loss", number(found.loss), f"over {found.examples} examples; norm of its gradient {number(found.gradient)}"
        )
    ]
    return rows + _ends(found) + _traces(found) + _density(found) + _noise(found)


def number(value: float) -> str:
    """Three digits.

    >>> number(0.066666), number(12345.6)
    ('0.0667', '1.23e+04')
    """
    return f"{value:.3g}"


def _ends(found: Inspection) -> list[Reading]:
    if found.sharpness is None or found.stable_lr is None or (found.bottom is None and len(found.top) == 0):
        return []
    rows = [Reading("sharpness", number(found.sharpness), "largest eigenvalue of the Hessian")]
    rule = "2 / sharpness" if not found.momentum else f"2 (1 + {found.momentum:g}) / sharpness"
    rows.append(Reading("largest stable lr", number(found.stable_lr), f"{rule}, for plain gradient descent"))
    if (ratio := found.sharpness_ratio) is not None:
        rows.append(Reading("lr / largest stable lr", number(ratio), _stability(ratio)))
    if found.bottom is not None:
        rows.append(Reading("smallest eigenvalue", number(found.bottom), _bottom(found.bottom, found.sharpness)))
    if found.overlap is not None:
        meaning = f"share of the gradient along the {len(found.top)} sharpest of {found.parameters:,} directions"
        rows.append(Reading("gradient in top space", f"{100 * found.overlap:.0f} %", meaning))
    if not found.converged:
        rows.append(Reading("converged", "no", "the ends were not found to the tolerance: they are bounds from inside"))
    return rows


def _stability(ratio: float) -> str:
    if ratio > 1.1:
        return "beyond the edge: steps along the sharpest direction grow until the surface flattens"
    return "at the edge of stability" if ratio > 0.9 else "stable along all directions"


def _bottom(bottom: float, top: float) -> str:
    if bottom > 0:
        return "positive: a valley in all directions"
    if top > 0 and -bottom > 0.1 * top:
        return "strong negative curvature: a saddle"
    return "negative curvature, weak beside the largest"


def _traces(found: Inspection) -> list[Reading]:
    if found.trace is None:
        return []
    rows = [Reading("trace", number(found.trace), f"sum of the eigenvalues, +- {number(found.trace_error or 0.0)}")]
    if found.condition is not None:
        rows.append(Reading("condition", number(found.condition), "largest over mean eigenvalue"))
    if found.effective_rank is not None:
        rows.append(
            Reading(
                "effective rank",
                number(found.effective_rank),
                f"of {found.parameters:,}: so many eigenvalues as large as the outermost make the sum of squares",
            )
        )
    return rows


def _density(found: Inspection) -> list[Reading]:
    if found.negative is None:
        return []
    return [
        Reading("eigenvalues below zero", f"{100 * found.negative:.0f} %", "by more than a thousandth of the largest")
    ]


def _noise(found: Inspection) -> list[Reading]:
    if found.scatter is None:
        return []
    scale = found.scatter.noise_scale
    if math.isinf(scale):
        return [Reading("noise scale", "unknown", "the gradient does not stand out of its noise on so few examples")]
    rows = [
        Reading("noise scale", number(scale), "batch size at which noise and signal of a gradient are equal"),
        Reading(
            "suggested batch size", f"{found.batch_size:,}", "far below it noise rules, far above it work is wasted"
        ),
    ]
    if found.gap_rate is not None:
        examples = found.train_examples or found.examples
        meaning = f"test loss - training loss, for {examples:,} training examples, while data are fresh"
        rows.append(Reading("gap a step", number(found.gap_rate), meaning))
    return rows
