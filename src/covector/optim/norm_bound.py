"""A cheap lower bound of the spectral norm, for step sizes that need its order of magnitude and no more."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["norm_bound"]


def norm_bound(matrices: Tensor, probes: Tensor, rounds: int = 2) -> Tensor:
    """A lower bound of the spectral norm of symmetric or skew-symmetric matrices, tight to a few percent.

    A subspace is iterated that starts around the row of the largest norm. No factorization: some products with few
    rows.

    Args:
        matrices: ``[batch, n, n]``, symmetric or skew-symmetric.
        probes: random rows ``[k, n]``, normal.
        rounds: of two products each.

    Returns:
        ``[batch]``; zero for a matrix of zeros.

    Source: Li, "Stochastic Hessian fitting on Lie groups", 2024 (the author's code).

    >>> a = torch.diag(torch.tensor([3.0, 1.0, 0.5])).unsqueeze(0)
    >>> norm_bound(a, torch.ones(2, 3)).round(decimals=2)
    tensor([3.])
    """
    tiny = torch.finfo(matrices.dtype).tiny
    size = matrices.abs().amax((-2, -1)).clamp(min=tiny)
    a = matrices / size[:, None, None]
    largest = a.square().sum(-1).argmax(-1)
    row = a.gather(1, largest[:, None, None].expand(-1, 1, a.shape[-1]))
    sides = (probes @ row.mT).sign()
    v = row + torch.where(sides == 0, 1.0, sides) * probes
    for _ in range(rounds):
        v = v @ a
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp(min=tiny)
        v = v @ a
    bound: Tensor = torch.linalg.vector_norm(v, dim=-1).amax(-1) * size
    return bound
