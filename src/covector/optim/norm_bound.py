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
    largest = torch.linalg.vector_norm(matrices, dim=-1).argmax(-1)
    row = matrices.gather(1, largest[:, None, None].expand(-1, 1, matrices.shape[-1]))
    row = row / row.abs().amax(-1, keepdim=True).clamp(min=tiny)
    sides = (probes @ row.mT).sign()
    v = row + torch.where(sides == 0, 1.0, sides) * probes
    for step in range(2 * rounds - 1):
        v = v @ matrices
        # entries near 1 first, whose squares neither overflow nor vanish
        v = v / v.abs().amax(-1, keepdim=True).clamp(min=tiny)
        if step % 2 == 0:
            v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp(min=tiny)
    return _norm(v @ matrices, tiny)


def _norm(rows: Tensor, tiny: float) -> Tensor:
    """The largest norm of the rows of each matrix."""
    size = rows.abs().amax((-2, -1), keepdim=True).clamp(min=tiny)
    norm: Tensor = torch.linalg.vector_norm(rows / size, dim=-1).amax(-1) * size[:, 0, 0]
    return norm
