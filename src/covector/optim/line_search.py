"""How far to go along a direction: Armijo's rule, by trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from covector.errors import ArgumentError

__all__ = ["Armijo"]


@dataclass(frozen=True)
class Armijo:
    """Backtrack until the loss falls by a share of what its slope promises.

    Args:
        decrease: the share, in (0, 1).
        shrink: factor of the step after a failure, in (0, 1).
        grow: factor from the last accepted step to the first trial of the next search, at least 1.
        trials: evaluations of the loss at most.

    Raises:
        ArgumentError: a number out of range.

    Source: Armijo (1966); defaults of "Exact Gauss-Newton optimization", 2024.

    >>> search = Armijo(shrink=0.5)
    >>> search(lambda t: (4.0 * t - 1.0) ** 2, loss=1.0, slope=-8.0, first=1.0)
    (0.25, 0.0)
    """

    decrease: float = 0.1
    shrink: float = 0.8
    grow: float = 1.5
    trials: int = 15

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("decrease", 0.0 < self.decrease < 1.0, "a number in (0, 1)"),
            ("shrink", 0.0 < self.shrink < 1.0, "a number in (0, 1)"),
            ("grow", self.grow >= 1.0, "a number of at least 1"),
            ("trials", self.trials >= 1, "a whole number of at least 1"),
        ):
            if not fits:
                raise ArgumentError(name, getattr(self, name), expected)

    def __call__(self, trial: Callable[[float], float], loss: float, slope: float, first: float) -> tuple[float, float]:
        """The first step that satisfies the rule, and the loss there.

        Args:
            trial: the loss after a step.
            loss: the loss now.
            slope: of the loss along the direction; not negative, or without a step that satisfies the rule, the
                answer is no step: ``(0.0, loss)``.
            first: the step that is tried first.
        """
        step = first
        for _ in range(self.trials if slope < 0.0 else 0):
            value = trial(step)
            if math.isfinite(value) and value <= loss + self.decrease * step * slope:
                return step, value
            step *= self.shrink
        return 0.0, loss
