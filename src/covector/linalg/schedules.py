"""Coefficients of the odd quintics ``X <- a X + b (X X^T) X + c (X X^T)^2 X``, which push singular values to 1."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy

from covector.errors import ArgumentError

__all__ = ["KELLER_JORDAN", "WHITENING", "Triple", "polar_express", "schedule"]

Triple: TypeAlias = tuple[float, float, float]

# Muon's: the steepest start that stays bounded; singular values end between 0.68 and 1.20, not at 1
KELLER_JORDAN: Triple = (3.4445, -4.7750, 2.0315)

# Frans, Levine & Abbeel (2025): one triple a step, singular values above 0.01 end between 0.97 and 1.04
WHITENING: tuple[Triple, ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

CUSHION = 0.02407327424182761  # fits below this share of the interval's end cost more at the top than they gain


def schedule(method: str, steps: int) -> tuple[Triple, ...]:
    """The triples of ``steps`` steps of a named iteration.

    Args:
        method: ``"newton-schulz"`` (one triple repeated), ``"whitening"`` (five triples, the last one repeated
            beyond) or ``"polar-express"``.
        steps: number of steps.

    >>> len(schedule("whitening", 7)), schedule("newton-schulz", 2)[1]
    (7, (3.4445, -4.775, 2.0315))
    """
    if method == "polar-express":
        return polar_express(steps)
    if method == "newton-schulz":
        return (KELLER_JORDAN,) * steps
    return (WHITENING + WHITENING[-1:] * max(0, steps - len(WHITENING)))[:steps]


@lru_cache(maxsize=64)
def polar_express(steps: int, lower: float = 1e-3, safety: float = 1.0) -> tuple[Triple, ...]:
    """The quintics that bring singular values from ``[lower, 1]`` closest to 1, greedily step by step.

    Each is the best uniform approximation of 1 by an odd quintic on the interval that the steps before leave,
    found by Remez's exchange, then scaled so that the interval is centered on 1. Source: Amsel, Persson, Musco,
    Gower, "The Polar Express" (2025), Algorithm 1; the default agrees with the triples printed there.

    Args:
        steps: number of steps.
        lower: smallest singular value, relative to the largest, that shall reach 1.
        safety: all steps but the last are made this much more careful; 1.01 in half precision.

    Returns:
        ``steps`` triples ``(a, b, c)``.

    Raises:
        ArgumentError: ``lower`` lies outside of (0, 1).

    >>> [round(x, 4) for x in polar_express(8)[0]]
    [8.2872, -23.5959, 17.3004]
    """
    if not 0.0 < lower < 1.0:
        raise ArgumentError("lower", lower, "a number between 0 and 1")
    upper, triples = 1.0, []
    for _ in range(steps):
        a, b, c = best_quintic(max(lower, CUSHION * upper), upper)
        ends = [a * x + b * x**3 + c * x**5 for x in (lower, upper)]
        center = 2.0 / sum(ends)
        triples.append((a * center, b * center, c * center))
        lower = ends[0] * center
        upper = 2.0 - lower
    careful = [(a / safety, b / safety**3, c / safety**5) for a, b, c in triples[:-1]]
    return (*careful, triples[-1])


def best_quintic(lower: float, upper: float) -> Triple:
    """Minimize ``max |1 - (a x + b x^3 + c x^5)|`` over ``[lower, upper]``; the error alternates at four points."""
    if lower / upper > 1.0 - 5e-6:  # the limit: value 1, first and second derivative 0 at the point
        return 15 / 8 / upper, -10 / 8 / upper**3, 3 / 8 / upper**5
    inner = [(3 * lower + upper) / 4, (lower + 3 * upper) / 4]
    error = math.inf
    for _ in range(100):
        points = numpy.array([lower, *inner, upper])
        system = numpy.stack([points, points**3, points**5, [1.0, -1.0, 1.0, -1.0]], axis=1)
        a, b, c, reached = (float(value) for value in numpy.linalg.solve(system, numpy.ones(4)))
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = [math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c))]
        if abs(error - reached) < 1e-15:
            break
        error = reached
    return a, b, c
