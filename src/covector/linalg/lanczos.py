"""Lanczos: an orthonormal basis of ``span(v, A v, A^2 v, ...)`` in which a symmetric operator is tridiagonal.

Everything that Krylov methods know about an operator comes from ``V A V^T = T``. In floating point the vectors of the
three-term recurrence lose their orthogonality as soon as a Ritz value converges, and copies of it appear. Here every
new vector is orthogonalized twice against all of the basis, which is one tensor ``[m, n]``: two matrix-vector products
a pass, whatever the shapes of the parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from covector.linalg.checks import check_steps
from covector.linalg.operator import LinearOperator
from covector.linalg.spectral import symmetric_eigh
from covector.linalg.vectors import Vectors, as_rows, check_symmetric, finite, multiply, probe_rows

__all__ = ["Lanczos", "lanczos", "lanczos_rows"]

BREAKDOWN = 20.0  # a residual of so many rounding errors of the operator is none: the space is invariant


class Lanczos(NamedTuple):
    """What a Lanczos run knows: ``V A V^T = T``, and ``A V^T - V^T T`` has one nonzero column.

    Attributes:
        alpha: diagonal of T, float64 ``[m]``.
        beta: float64 ``[m]``; ``beta[j]`` couples j and j + 1, the last one is the norm of the residual.
        basis: V, orthonormal rows ``[m, n]``.
        residual: the unit vector ``[n]`` that would come next; zero after an exact breakdown.

    >>> from covector.linalg import DenseOperator
    >>> found = lanczos(DenseOperator(torch.diag(torch.tensor([1.0, 3.0]))), steps=2)
    >>> [round(value, 4) for value in found.ritz()[0].tolist()]
    [1.0, 3.0]
    """

    alpha: Tensor
    beta: Tensor
    basis: Tensor
    residual: Tensor

    def tridiagonal(self) -> Tensor:
        """T, float64 ``[m, m]``."""
        return tridiagonal(self.alpha, self.beta)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values ``[m]`` (ascending), Ritz vectors in columns ``[n, m]``, and their residual norms ``[m]``."""
        values, small = symmetric_eigh(self.tridiagonal())
        return values, (self.basis.mT @ small.to(self.basis)), self.beta[-1] * small[-1].abs()


def lanczos(op: LinearOperator, start: Vectors | None = None, steps: int = 32, seed: int = 0) -> Lanczos:
    """``steps`` steps of the Lanczos iteration with full re-orthogonalization.

    Args:
        op: symmetric, ``n x n``.
        start: ``[n]`` or Params; default: a normal random vector.
        steps: products with the operator (default 32); fewer are made where the space is exhausted before.
        seed: of the random start.

    Returns:
        A :class:`Lanczos` of m <= ``steps`` steps.

    Raises:
        ArgumentError: the operator is not symmetric, or ``steps`` below 1.
        MismatchError: ``start`` does not fit the operator.
        NonFiniteError: a product is NaN or infinite.

    Source: Lanczos (1950); Parlett, "The symmetric eigenvalue problem", chapter 13.

    >>> from covector.linalg import DenseOperator
    >>> run = lanczos(DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0]))), torch.ones(3), steps=10)
    >>> len(run.alpha), [round(value, 4) for value in run.ritz()[0].tolist()]
    (3, [1.0, 2.0, 3.0])
    """
    check_symmetric(op, "lanczos")
    check_steps(steps)
    rows = probe_rows(op, 1, seed, "lanczos", "normal") if start is None else as_rows(op, start, "start")[0][:1]
    alpha, beta, basis, residual = lanczos_rows(op, rows, steps)
    return Lanczos(alpha[0], beta[0], basis[0], residual[0])


@torch.no_grad()
def lanczos_rows(op: LinearOperator, starts: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Lanczos run for each row of ``starts`` ``[p, n]``, side by side: each step is one product with a block.

    Returns:
        alpha and beta (float64 ``[p, m]``), bases ``[p, m, n]``, residual vectors ``[p, n]``. A run that exhausts its
        space before the others goes on with zeros, which couple to nothing.
    """
    p, n = starts.shape
    steps = min(steps, n)
    basis = starts.new_zeros(p, steps, n)
    alpha = torch.zeros(p, steps, dtype=torch.float64, device=starts.device)
    beta = torch.zeros_like(alpha)
    scale = torch.zeros(p, dtype=torch.float64, device=starts.device)
    tiny = BREAKDOWN * torch.finfo(starts.dtype).eps
    vector = starts / norms(starts).clamp_min(torch.finfo(starts.dtype).tiny)[:, None].to(starts)
    done = 0
    for j in range(steps):
        basis[:, j] = vector
        image = multiply(op, vector)
        alpha[:, j] = (vector * image).sum(-1, dtype=torch.float64)
        image, _ = orthogonalize(basis[:, : j + 1], image)
        length = norms(image)
        scale = torch.maximum(scale, alpha[:, j].abs() + length)
        alive = length > tiny * scale
        beta[:, j] = length * alive
        vector = image * (alive / length.clamp_min(torch.finfo(torch.float64).tiny))[:, None].to(image)
        done = j + 1
        if vector.device.type == "cpu" and not bool(alive.any()):  # on a GPU the question would stall the queue
            break
    finite(alpha, "lanczos")
    return alpha[:, :done], beta[:, :done], basis[:, :done], vector


def orthogonalize(basis: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """``vectors`` ``[p, n]`` minus their parts in the rows of ``basis`` ``[p, m, n]``, twice; and the parts ``[p, m]``.

    Once leaves what rounding makes of the parts it takes away; twice is enough (Kahan and Parlett).
    """
    first = torch.bmm(basis, vectors[:, :, None])
    left = vectors - torch.bmm(first.mT, basis)[:, 0]
    second = torch.bmm(basis, left[:, :, None])
    return left - torch.bmm(second.mT, basis)[:, 0], (first + second)[:, :, 0]


def norms(rows: Tensor) -> Tensor:
    """Norms of the rows, in float64."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return lengths


def tridiagonal(alpha: Tensor, beta: Tensor) -> Tensor:
    """Symmetric tridiagonal matrices ``[..., m, m]`` from diagonals ``[..., m]`` and ``beta[..., :-1]`` beside them."""
    off = torch.diag_embed(beta[..., :-1], 1)
    return torch.diag_embed(alpha) + off + off.mT
