"""Matrices with orthonormal columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from covector.linalg.orthonormalize import orthonormalize, reorthonormalize
from covector.optim.manifolds.base import Manifold

__all__ = ["Stiefel"]


@dataclass(frozen=True)
class Stiefel(Manifold):
    """Matrices ``X [n, p]``, ``n >= p``, ``X^T X = I``, with the inner product of the space around.

    Parallel transport has no closed form here; vectors are carried by projection to the new tangent space, which
    shortens them to second order.

    Source: Edelman, Arias and Smith, "The geometry of algorithms with orthogonality constraints", 1998, section 2.2.

    >>> x = Stiefel().project(torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]]))
    >>> x.T @ x
    tensor([[1., 0.],
            [0., 1.]])
    """

    point_dims = 2

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return derivative - x @ _symmetric(x.mT @ derivative)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(self.dims, keepdim=True)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        p = x.shape[-1]
        a = x.mT @ u
        eye = torch.eye(p, dtype=x.dtype, device=x.device).expand_as(a)
        block = torch.cat((torch.cat((a, -u.mT @ u), -1), torch.cat((eye, a), -1)), -2)
        moved: Tensor = torch.cat((x, u), -1) @ torch.matrix_exp(block)[..., :p] @ torch.matrix_exp(-a)
        return reorthonormalize(moved)  # takes out the rounding of many steps

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        # the factor with a positive diagonal in r, which is near x for a small u
        return orthonormalize(x + u, check=False)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.gradient(y, u)

    def project(self, x: Tensor) -> Tensor:
        left, _, right = torch.linalg.svd(x, full_matrices=False)
        nearest: Tensor = left @ right
        return nearest


def _symmetric(a: Tensor) -> Tensor:
    return (a + a.mT) / 2
