"""The batch size that the noise of a gradient asks for: norm, inner-product, orthogonality and coordinate-wise tests.

With per-example gradients ``g_i`` of mean ``g``, a batch of b passes where the noise of its mean is small against it::

    norm            sum_j Var[g_i]_j / b <= eta^2 ||g||^2
    inner product   Var <g_i, g> / b <= theta^2 ||g||^4
    orthogonality   sum_j Var[g_i - <g_i, g> / ||g||^2 g]_j / b <= nu^2 ||g||^2
    coordinate      Var[g_i]_j / b <= eta^2 g_j^2    for all j

Each function returns the b at which its test would hold with equality.
"""

from __future__ import annotations

import math

import torch

from covector.errors import CompositionError
from covector.optim.moments import GradientMoments

__all__ = ["coordinate_test", "inner_product_test", "norm_test", "orthogonality_test"]

_NO_INNER = "these moments have no inner variance: parts that are merged do not know the common mean"


def norm_test(moments: GradientMoments, eta: float) -> float:
    """``trace / (eta^2 ||g||^2)``; Byrd, Chin, Nocedal and Wu 2012.

    >>> norm_test(GradientMoments.from_examples({"x": torch.tensor([[1.0, 0.0], [3.0, 0.0]])}), eta=0.5)
    2.0
    """
    return _ratio(moments.trace, eta**2 * moments.squared_norm)


def inner_product_test(moments: GradientMoments, theta: float, by_tensor: bool = False) -> float:
    """``Var <g_i, g> / (theta^2 ||g||^4)``; Bollapragada, Byrd and Nocedal 2018.

    Args:
        moments: with inner variances.
        theta: tolerance.
        by_tensor: whether to leave out the covariances between parameter tensors, as the published code does.

    >>> inner_product_test(GradientMoments.from_examples({"x": torch.tensor([[1.0, 0.0], [3.0, 0.0]])}), theta=0.5)
    2.0
    """
    inner = moments.inner_by_tensor if by_tensor else moments.inner
    if inner is None:
        raise CompositionError(_NO_INNER)
    return _ratio(inner, theta**2 * moments.squared_norm**2)


def orthogonality_test(moments: GradientMoments, nu: float) -> float:
    """The variance that is left beside the mean's direction, ``(trace - Var <g_i, g> / ||g||^2) / (nu^2 ||g||^2)``.

    >>> orthogonality_test(GradientMoments.from_examples({"x": torch.tensor([[1.0, 0.0], [3.0, 0.0]])}), nu=1.0)
    0.0
    """
    if moments.inner is None:
        raise CompositionError(_NO_INNER)
    squared = moments.squared_norm
    left = moments.trace - _ratio(moments.inner, squared)
    return _ratio(max(left, 0.0), nu**2 * squared)


def coordinate_test(moments: GradientMoments, eta: float, quantile: float = 1.0) -> float:
    """``Var[g_i]_j / (eta^2 g_j^2)``, its maximum over the coordinates or a quantile.

    Args:
        moments: with the variance by coordinate.
        eta: tolerance.
        quantile: 1.0 is the test for all j, which one coordinate of small ``g_j`` decides; coordinates that are zero
            in every example are left out.

    >>> coordinate_test(GradientMoments.from_examples({"x": torch.tensor([[1.0, 2.0], [3.0, 2.0]])}), eta=0.5)
    2.0
    """
    if moments.variance is None:
        raise CompositionError("these moments have no variance by coordinate")
    variance = torch.cat([v.flatten().double() for v in moments.variance.values()])
    squared = torch.cat([m.flatten().double().square() for m in moments.mean.values()])
    alive = (variance > 0.0) | (squared > 0.0)
    if not bool(alive.any()):
        return 0.0
    ratios = (variance[alive] / (eta**2 * squared[alive])).sort().values
    return float(ratios[max(0, math.ceil(quantile * len(ratios)) - 1)])


def _ratio(noise: float, signal: float) -> float:
    if signal > 0.0:
        return noise / signal
    return math.inf if noise > 0.0 else 0.0
