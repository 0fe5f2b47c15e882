"""What a batch does to the top of a spectrum: formulas of random matrix theory, and step sizes that follow from them.

A batch's curvature is the full one plus noise that shrinks with the batch. The noise pushes the largest eigenvalue up,
or hides it under an edge of its own; the largest learning rate that is stable follows the batch's eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from covector.errors import ArgumentError

__all__ = ["effective_size", "heavy_ball", "lr_for_batch", "marchenko_pastur_top", "wigner_top"]


def effective_size(size: int, examples: int | None = None) -> float:
    """``B / (1 - B/N)``: the size that a batch of B among N examples drawn without replacement has as noise.

    Args:
        size: examples of a batch, B.
        examples: of all there are, N; default: without end.

    Raises:
        ArgumentError: ``size`` below 1 or above ``examples``.

    >>> effective_size(50, 100), effective_size(50)
    (100.0, 50.0)
    """
    if size < 1 or (examples is not None and size > examples):
        raise ArgumentError("size", size, f"a whole number from 1 to {examples or 'any'}")
    if examples is None:
        return float(size)
    return math.inf if size == examples else size / (1 - size / examples)


def wigner_top(value: float, noise: float, size: float) -> float:
    """The outermost eigenvalue of a matrix plus symmetric noise of independent elements.

    ``value + noise / (size value)`` where that stands out of the noise, else the noise's own edge
    ``2 sqrt(noise / size)``; for a negative value the same below zero.

    Args:
        value: outermost eigenvalue of the matrix without noise.
        noise: variance of an element for a batch of one, times the number of parameters: ``P sigma^2``.
        size: effective size of the batch.

    Source: Granziol, Zohren, Roberts, "Learning rates as a function of batch size" (2020), theorem 1.

    >>> wigner_top(2.0, noise=400 * 0.04, size=16)
    2.5
    >>> wigner_top(0.1, noise=400 * 0.04, size=16)
    2.0
    """
    spread = noise / size
    if abs(value) <= math.sqrt(spread):
        return math.copysign(2 * math.sqrt(spread), value)
    return value + spread / value


def marchenko_pastur_top(value: float, variance: float, parameters: int, size: float) -> float:
    """The largest eigenvalue of a sample covariance with one direction above a bulk of equal variance.

    ``value (1 + q variance / (value - variance))`` with ``q = parameters / size`` where it stands out of the bulk, else
    the bulk's edge ``variance (1 + sqrt q)^2``. For Gauss-Newton and gradient covariance, which are sums of squares.

    Args:
        value: largest eigenvalue of the covariance itself.
        variance: of every other direction.
        parameters: dimension.
        size: samples.

    Source: Baik, Ben Arous, Peche (2005), as used by Granziol, Zohren, Roberts (2020).

    >>> round(marchenko_pastur_top(5.0, 0.05, parameters=400, size=20), 2)
    6.01
    """
    ratio = parameters / size
    if value <= variance * (1 + math.sqrt(ratio)):
        return variance * (1 + math.sqrt(ratio)) ** 2
    return value * (1 + ratio * variance / (value - variance))


def lr_for_batch(lr: float, size: int, new: int, rule: str = "sgd") -> float:
    """The learning rate for another batch size: in proportion for SGD, by the square root for Adam and its kin.

    Holds while the noise rules the batch's spectrum; :meth:`BatchSpectrum.saturation` says until where.

    Args:
        lr: what works at ``size``.
        size: examples of the batch it was found for.
        new: examples of the batch it is wanted for.
        rule: ``"sgd"`` or ``"adam"``.

    Raises:
        ArgumentError: an unknown rule or a size below 1.

    >>> lr_for_batch(0.1, 32, 128), lr_for_batch(1e-3, 32, 128, rule="adam")
    (0.4, 0.002)
    """
    for name, count in (("size", size), ("new", new)):
        if count < 1:
            raise ArgumentError(name, count, "a whole number of at least 1")
    if rule not in ("sgd", "adam"):
        raise ArgumentError("rule", rule, "'sgd' or 'adam'")
    return lr * new / size if rule == "sgd" else lr * math.sqrt(new / size)


def heavy_ball(values: Iterable[float]) -> tuple[float, float]:
    """Learning rate and momentum that fit a spectrum best: Polyak's heavy ball between its ends.

    Args:
        values: eigenvalues, or Ritz values of a Lanczos run; those that are not positive are left out.

    Returns:
        ``(2 / (sqrt L + sqrt m))^2`` and ``((sqrt L - sqrt m) / (sqrt L + sqrt m))^2``, from the largest L and the
        smallest m.

    Raises:
        ArgumentError: no value is positive.

    >>> heavy_ball([1.0, 4.0, 9.0])
    (0.25, 0.25)
    """
    positive = [value for value in values if value > 0]
    if not positive:
        raise ArgumentError("values", "none above 0", "at least one positive eigenvalue")
    low, high = math.sqrt(min(positive)), math.sqrt(max(positive))
    return (2 / (high + low)) ** 2, ((high - low) / (high + low)) ** 2
