"""Metrics in which a direction of descent is taken: preconditioners that are inverses of a Riemannian metric.

A metric A at a point turns a covector v into the direction ``A^{-1} v``; sets that parameters must stay in have metrics
whose inverse vanishes at the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Affine", "BoxMetric", "Euclidean", "Metric", "Natural", "Orthant", "Simplex"]


class Metric(Protocol):
    """A symmetric positive semidefinite matrix for each point, known by what its (pseudo-)inverse does."""

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        """``A^{-1} v`` of all tensors together; must not write into its arguments."""


class Euclidean:
    """The identity.

    >>> Euclidean().inverse([torch.zeros(1)], [torch.ones(1)])
    [tensor([1.])]
    """

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        return list(covectors)


class Simplex:
    """Positive numbers with a constant sum in each tensor, in the metric of the entropy: ``x (v - <x, v> / sum x)``.

    >>> Simplex().inverse([torch.tensor([0.5, 0.5])], [torch.tensor([1.0, 0.0])])
    [tensor([ 0.2500, -0.2500])]
    """

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        return [x * (v - (x * v).sum() / x.sum()) for x, v in zip(points, covectors, strict=True)]


class Orthant:
    """Positive numbers, in the metric of the entropy: ``x v``.

    >>> Orthant().inverse([torch.tensor([0.5, 2.0])], [torch.ones(2)])
    [tensor([0.5000, 2.0000])]
    """

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        return [x * v for x, v in zip(points, covectors, strict=True)]


@dataclass(frozen=True)
class BoxMetric:
    """Numbers between two bounds, in the metric of Fermi-Dirac entropy: ``(x - l) (u - x) / (u - l) v``.

    >>> BoxMetric(0.0, 1.0).inverse([torch.tensor([0.5, 1.0])], [torch.ones(2)])
    [tensor([0.2500, 0.0000])]
    """

    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ArgumentError("upper", self.upper, f"above lower={self.lower}")

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        width = self.upper - self.lower
        return [(x - self.lower) * (self.upper - x) / width * v for x, v in zip(points, covectors, strict=True)]


class Affine:
    """Points with ``B x = b``: directions in the kernel of B, for each tensor as a vector, within another metric M.

    ``M^{-1} - M^{-1} B^T (B M^{-1} B^T)^{-1} B M^{-1}``, with M diagonal.

    Args:
        matrix: B, ``[constraints, n]``, of full row rank.
        metric: M, one of the diagonal metrics; default Euclidean.

    >>> Affine(torch.ones(1, 2)).inverse([torch.zeros(2)], [torch.tensor([1.0, 0.0])])
    [tensor([ 0.5000, -0.5000])]
    """

    def __init__(self, matrix: Tensor, metric: Metric | None = None) -> None:
        if matrix.ndim != 2 or int(torch.linalg.matrix_rank(matrix)) < len(matrix):
            raise ArgumentError("matrix", tuple(matrix.shape), "a matrix of full row rank")
        self.matrix, self.metric = matrix, metric or Euclidean()

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        return [self._one(x, v) for x, v in zip(points, covectors, strict=True)]

    def _one(self, x: Tensor, v: Tensor) -> Tensor:
        b = self.matrix.to(v)
        # the diagonal of M^{-1} is what it does to ones
        (diagonal,) = self.metric.inverse([x], [torch.ones_like(v)])
        weights, flat = diagonal.reshape(-1), v.reshape(-1)
        multipliers: Tensor = torch.linalg.solve((b * weights) @ b.T, b @ (weights * flat))
        direction: Tensor = weights * (flat - multipliers @ b)
        return direction.reshape(v.shape)


@dataclass(frozen=True)
class Natural:
    """A matrix over all parameters, such as Fisher's, solved for each direction.

    Args:
        matrix: gives A ``[n, n]`` at a point, the tensors flattened in order; symmetric and positive semidefinite.
        damping: added to its diagonal; 0 takes the pseudo-inverse where A is singular.

    >>> metric = Natural(lambda points: torch.diag(torch.tensor([2.0, 4.0])), damping=0.0)
    >>> metric.inverse([torch.zeros(2)], [torch.ones(2)])
    [tensor([0.5000, 0.2500])]
    """

    matrix: Callable[[Sequence[Tensor]], Tensor]
    damping: float = 1e-8

    def inverse(self, points: Sequence[Tensor], covectors: Sequence[Tensor]) -> list[Tensor]:
        flat = torch.cat([v.reshape(-1) for v in covectors])
        a = self.matrix(points).to(flat)
        if self.damping:
            a = a + self.damping * torch.eye(len(a), dtype=a.dtype, device=a.device)
        factor, info = torch.linalg.cholesky_ex(a)
        if int(info):
            direction = torch.linalg.lstsq(a, flat[:, None], driver="gelsd").solution[:, 0]
        else:
            direction = torch.cholesky_solve(flat[:, None], factor)[:, 0]
        parts = direction.split([v.numel() for v in covectors])
        return [part.reshape(v.shape) for part, v in zip(parts, covectors, strict=True)]
