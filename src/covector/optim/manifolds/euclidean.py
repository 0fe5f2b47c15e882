"""Flat space, as factors R^d of a product of manifolds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from covector.optim.manifolds.base import Manifold

__all__ = ["Euclidean"]


@dataclass(frozen=True)
class Euclidean(Manifold):
    """R^d with the usual inner product: a row is one factor, so that an adaptive step scales it as a whole.

    >>> import torch
    >>> Euclidean().exp(torch.ones(2), torch.tensor([1.0, 2.0]))
    tensor([2., 3.])
    """

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return derivative

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(self.dims, keepdim=True)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return u

    def project(self, x: Tensor) -> Tensor:
        return x

    def log_origin(self, x: Tensor) -> Tensor:
        return -x
