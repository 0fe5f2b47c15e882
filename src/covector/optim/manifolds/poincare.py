"""The Poincare ball: hyperbolic space of curvature -c within the ball of radius ``1 / sqrt(c)``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.manifolds.base import Manifold

__all__ = ["PoincareBall"]

_SMALLEST = 1e-15  # a norm that may be divided by


@dataclass(frozen=True)
class PoincareBall(Manifold):
    """Points ``c ||x||^2 < 1`` with the metric ``lambda^2 <u, v>``, ``lambda = 2 / (1 - c ||x||^2)``.

    Points are kept ``4e-3`` (float64: ``1e-5``) of the radius away from the boundary, where rounding would put
    them outside.

    Args:
        c: minus the curvature, above zero.

    Source: Ganea, Becigneul and Hofmann, "Hyperbolic neural networks", 2018, section 2; Ungar 2008 for the
    gyration.

    >>> ball = PoincareBall()
    >>> x, y = torch.tensor([0.5, 0.0]), torch.tensor([-0.5, 0.0])
    >>> round(float(ball.distance(x, y)), 4)  # 4 artanh(1/2)
    2.1972
    """

    c: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.c < float("inf"):
            raise ArgumentError("c", self.c, "a finite number above 0")

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return derivative * ((1 - self.c * _dot(x, x)).square() / 4)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.conformal(x).square() * _dot(u, v)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        length, root = _norm(u), math.sqrt(self.c)
        return self.project(self.add(x, torch.tanh(root * self.conformal(x) * length / 2) * u / (root * length)))

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.project(x + u)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        # gyr[y, -x] u, times the ratio of the conformal factors
        xx, yy, xy, yu, xu = _dot(x, x), _dot(y, y), _dot(x, y), _dot(y, u), _dot(x, u)
        c = self.c
        of_y = -(c**2) * yu * xx - c * xu + 2 * c**2 * xy * xu
        of_x = -(c**2) * xu * yy + c * yu
        turned = u + 2 * (of_y * y + of_x * x) / (1 - 2 * c * xy + c**2 * xx * yy)
        return turned * (1 - c * yy) / (1 - c * xx)

    def project(self, x: Tensor) -> Tensor:
        limit = (1 - (1e-5 if x.dtype == torch.float64 else 4e-3)) / math.sqrt(self.c)
        return x * (limit / _norm(x)).clamp(max=1.0)

    def log_origin(self, x: Tensor) -> Tensor:
        length, root = _norm(x), math.sqrt(self.c)
        return torch.atanh(root * length) * x / length * ((self.c * _dot(x, x) - 1) / root)

    def conformal(self, x: Tensor) -> Tensor:
        """``lambda`` at each point, ``[..., 1]``.

        >>> PoincareBall().conformal(torch.zeros(3))
        tensor([2.])
        """
        return 2 * (1 - self.c * _dot(x, x)).reciprocal()

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Mobius addition.

        >>> PoincareBall().add(torch.tensor([0.5]), torch.tensor([0.5]))  # tanh of twice artanh(1/2)
        tensor([0.8000])
        """
        c, xx, yy, xy = self.c, _dot(x, x), _dot(y, y), _dot(x, y)
        return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c**2 * xx * yy)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Length of the geodesic between points, ``[...]``; differentiable, also where the points are equal.

        >>> ball = PoincareBall(c=0.25)
        >>> ball.distance(torch.zeros(2), ball.exp(torch.zeros(2), torch.tensor([0.5, 0.0])))
        tensor(1.)
        """
        spread = (1 - self.c * _dot(x, x)) * (1 - self.c * _dot(y, y))
        root = math.sqrt(self.c)
        # arcosh(1 + 2 s^2) = 2 arsinh(s), without the cancellation
        chord: Tensor = torch.linalg.vector_norm(x - y, dim=-1)
        return torch.asinh(root * chord / spread.squeeze(-1).sqrt()) * (2 / root)


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1, keepdim=True)


def _norm(u: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    return length.clamp(min=_SMALLEST)
