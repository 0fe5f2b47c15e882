"""What theory promises of a trust region, as numbers: how to set it, and how far from stationary it may end."""

from __future__ import annotations

import math
from typing import NamedTuple

from covector.errors import ArgumentError

__all__ = ["TrustRegionPlan", "trust_region", "trust_region_bound"]


class TrustRegionPlan(NamedTuple):
    """Settings that reach a given accuracy.

    ``lr`` is the radius of the trust region, ``momentum`` is ``1 - alpha``, and after ``steps`` the smallest expected
    dual norm of the gradient is at most ``eps``.
    """

    lr: float
    momentum: float
    steps: int


def trust_region(smoothness: float, noise: float, ratio: float, gap: float, eps: float) -> TrustRegionPlan:
    """Radius, momentum and steps with which ``min_k E ||grad f(x_k)||_* <= eps``.

    Args:
        smoothness: L: ``||grad f(x) - grad f(y)||_* <= L ||x - y||``.
        noise: sigma: root of the mean of ``||g - grad f||_2^2``.
        ratio: rho: ``||x||_* <= rho ||x||_2``; ``sqrt(min(m, n))`` for the spectral norm, ``sqrt(m n)`` for the largest
            element, 1 for Frobenius.
        gap: ``f(x_0) - min f``.
        eps: accuracy.

    Raises:
        ArgumentError: an argument out of range.

    Source: D. Kovalev, 2025, Theorem 2 and the corollary that follows it.

    >>> trust_region(smoothness=1.0, noise=0.0, ratio=1.0, gap=1.0, eps=0.1)
    TrustRegionPlan(lr=0.00625, momentum=0.0, steps=12800)
    """
    _check(smoothness=smoothness, gap=gap, eps=eps)
    _check(True, noise=noise, ratio=ratio)
    scatter = ratio * noise
    lr, alpha = eps / (16 * smoothness), 1.0
    if scatter > 0.0:
        lr = min(lr, eps**3 / (256 * scatter**2 * smoothness))
        alpha = min(1.0, eps**2 / (16 * scatter**2))
    steps = max(
        2048 * smoothness * gap * scatter**2 / eps**4,
        256 * scatter**3 / eps**3,
        128 * smoothness * gap / eps**2,
        16 * scatter / eps,
    )
    return TrustRegionPlan(lr, 1.0 - alpha, math.ceil(steps * (1 - 1e-12)))


def trust_region_bound(
    smoothness: float, noise: float, ratio: float, gap: float, lr: float, momentum: float, steps: int
) -> float:
    """What ``min_k E ||grad f(x_k)||_*`` cannot exceed after some steps; loose, often by a factor of 10 to 100.

    Args:
        smoothness: L, as for :func:`trust_region`.
        noise: sigma.
        ratio: rho.
        gap: ``f(x_0) - min f``.
        lr: radius of the trust region.
        momentum: ``1 - alpha``.
        steps: taken.

    Raises:
        ArgumentError: an argument out of range.

    Source: D. Kovalev, 2025, Theorem 2.

    >>> plan = trust_region(1.0, 0.5, 2.0, 1.0, eps=0.1)
    >>> trust_region_bound(1.0, 0.5, 2.0, 1.0, *plan) <= 0.1
    True
    """
    _check(smoothness=smoothness, gap=gap, lr=lr, steps=steps, alpha=1.0 - momentum)
    _check(True, noise=noise, ratio=ratio)
    alpha, scatter = 1.0 - momentum, ratio * noise
    start = gap / (lr * steps) + 2 * scatter / (alpha * steps)
    return start + 2 * math.sqrt(alpha) * scatter + 1.5 * smoothness * lr + 2 * smoothness * lr / alpha


def _check(zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and (value >= 0.0 if zero else value > 0.0)):
            raise ArgumentError(name, value, f"a finite number {'of at least' if zero else 'above'} 0")
