"""How long a message is under way, counted in gradients that the workers take meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from covector.errors import ArgumentError

__all__ = ["Delay", "Fixed", "Geometric", "Poisson"]

# from a uniform number in [0, 1) to a delay: the inverse of its distribution function
Delay = Callable[[float], int]


@dataclass(frozen=True)
class Fixed:
    """Always the same delay.

    Args:
        count: gradients; of p equal workers that compute at the same time, each has a delay of p - 1.

    >>> Fixed(4)(0.9)
    4
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ArgumentError("count", self.count, "a whole number of at least 0")

    def __call__(self, u: float) -> int:
        return self.count


@dataclass(frozen=True)
class Poisson:
    """Delays that scatter about their mean.

    Args:
        mean: gradients.

    >>> [Poisson(4.0)(u) for u in (0.01, 0.5, 0.99)]
    [0, 4, 9]
    """

    mean: float

    def __post_init__(self) -> None:
        _check_mean(self.mean, 500.0)

    def __call__(self, u: float) -> int:
        count, term = 0, math.exp(-self.mean)
        below = term
        while below <= u and term > 0.0:
            count += 1
            term *= self.mean / count
            below += term
        return count


@dataclass(frozen=True)
class Geometric:
    """Mostly short delays and a few long ones: stragglers.

    Args:
        mean: gradients.

    >>> [Geometric(4.0)(u) for u in (0.1, 0.5, 0.99)]
    [0, 3, 20]
    """

    mean: float

    def __post_init__(self) -> None:
        _check_mean(self.mean, math.inf)

    def __call__(self, u: float) -> int:
        stay = self.mean / (1.0 + self.mean)
        return int(math.log1p(-u) / math.log(stay)) if stay > 0.0 else 0


def _check_mean(mean: float, limit: float) -> None:
    if not 0.0 <= mean < limit:
        raise ArgumentError("mean", mean, f"a number from 0 to {limit:g}")
