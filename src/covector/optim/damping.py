"""How much to trust a quadratic model: Levenberg's and Marquardt's rule for its damping."""

from __future__ import annotations

import math
from dataclasses import dataclass

from covector.errors import ArgumentError

__all__ = ["LevenbergMarquardt"]


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Compare what a step brought with what the model promised: damp more where that was little, else less.

    Args:
        low: below this ratio of actual to promised decrease, the damping grows.
        high: above it, the damping shrinks.
        grow: factor, above 1.
        shrink: factor, below 1.
        least: the damping stays above.
        most: the damping stays below.

    Raises:
        ArgumentError: a number out of range.

    Source: Marquardt (1963); Martens, "Deep learning via Hessian-free optimization", 2010.

    >>> LevenbergMarquardt().adapt(1.0, ratio=0.9), LevenbergMarquardt().adapt(1.0, ratio=-2.0)
    (0.5, 1.5)
    """

    low: float = 0.25
    high: float = 0.75
    grow: float = 1.5
    shrink: float = 0.5
    least: float = 1e-12
    most: float = 1e6

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("low", self.low <= self.high, "at most high"),
            ("grow", self.grow > 1.0, "a number above 1"),
            ("shrink", 0.0 < self.shrink < 1.0, "a number in (0, 1)"),
            ("least", 0.0 < self.least <= self.most, "a number above 0, at most `most`"),
        ):
            if not fits:
                raise ArgumentError(name, getattr(self, name), expected)

    def adapt(self, damping: float, ratio: float) -> float:
        """The damping of the next step.

        Args:
            damping: of this step.
            ratio: actual over promised change of the loss; NaN where the loss was not finite.
        """
        if not math.isfinite(ratio) or ratio < self.low:
            damping *= self.grow
        elif ratio > self.high:
            damping *= self.shrink
        return min(max(damping, self.least), self.most)
