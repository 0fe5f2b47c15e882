"""The unit sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from covector.optim.manifolds.base import Manifold

__all__ = ["Sphere"]


@dataclass(frozen=True)
class Sphere(Manifold):
    """Rows of unit norm, with the inner product of the space around.

    >>> x, u = torch.tensor([1.0, 0.0]), torch.tensor([0.0, torch.pi / 2])
    >>> Sphere().exp(x, u).round().abs()
    tensor([0., 1.])
    """

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return derivative - _dot(x, derivative) * x

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return _dot(u, v)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        # sin |u| u / |u|, and torch's sinc has the pi inside; the rounding of many steps is taken out
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        return self.project(length.cos() * x + torch.sinc(length / torch.pi) * u)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.project(x + u)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return u - _dot(y, u) / (1 + _dot(x, y)).clamp(min=torch.finfo(x.dtype).eps) * (x + y)

    def project(self, x: Tensor) -> Tensor:
        unit: Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return unit

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The angle between points, radians.

        >>> Sphere().distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor(1.5708)
        """
        return 2 * torch.atan2(torch.linalg.vector_norm(x - y, dim=-1), torch.linalg.vector_norm(x + y, dim=-1))


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1, keepdim=True)
