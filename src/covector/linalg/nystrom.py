"""The Nystrom approximation of a positive operator from one sketch, and the preconditioner it gives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from covector.errors import ArgumentError
from covector.linalg.checks import check_steps
from covector.linalg.operator import LinearOperator
from covector.linalg.vectors import check_symmetric, finite, multiply, probe_rows, work_dtype

__all__ = ["Nystrom", "nystrom"]


class Nystrom(LinearOperator):
    """``U^T diag(values) U`` with orthonormal rows U: an operator of low rank.

    Args:
        basis: U, orthonormal rows ``[r, n]``.
        values: float64 ``[r]``, descending, none negative.
        of: the operator it approximates, for its names.

    >>> low = Nystrom(torch.eye(3)[:1], torch.tensor([2.0]))
    >>> low @ torch.ones(3)
    tensor([2., 0., 0.])
    """

    def __init__(self, basis: Tensor, values: Tensor, of: LinearOperator | None = None) -> None:
        n, like = basis.shape[1], None if of is None else of.like
        super().__init__((n, n), basis.dtype, basis.device, symmetric=True, positive=True, like=like)
        self.basis, self.values = basis, values

    def rows(self, block: Tensor) -> Tensor:
        return (block @ self.basis.mT * self.values.to(block)) @ self.basis

    def preconditioner(self, shift: float) -> LinearOperator:
        """``P^-1`` for systems with ``A + shift I``: the known directions are scaled to the weakest known curvature.

        Args:
            shift: of the system, at least 0; with 0 no value may be zero.

        >>> low = Nystrom(torch.eye(2), torch.tensor([3.0, 1.0]))
        >>> low.preconditioner(1.0) @ torch.ones(2)
        tensor([0.5000, 1.0000])
        """
        floor = float(self.values[-1]) + shift
        if shift < 0 or floor <= 0:
            raise ArgumentError("shift", shift, "a positive number (at least 0, where all values are positive)")
        return _Scaled(self, floor / (self.values + shift) - 1.0)


class _Scaled(LinearOperator):
    """``I + U^T diag(gains) U``."""

    def __init__(self, of: Nystrom, gains: Tensor) -> None:
        super().__init__(of.shape, of.dtype, of.device, symmetric=True, positive=True, like=of.like)
        self.of, self.gains = of, gains

    def rows(self, block: Tensor) -> Tensor:
        return block + (block @ self.of.basis.mT * self.gains.to(block)) @ self.of.basis


@torch.no_grad()
def nystrom(op: LinearOperator, rank: int, seed: int = 0) -> Nystrom:
    """The best approximation of a positive operator from its products with ``rank`` random vectors.

    ``A Z (Z^T A Z)^-1 Z^T A`` never exceeds A, and is A where A has rank at most ``rank``.

    Args:
        op: symmetric and positive semidefinite, ``n x n``.
        rank: products, and eigenvalues that are kept; at most n.
        seed: of the sketch.

    Returns:
        A :class:`Nystrom`.

    Raises:
        ArgumentError: the operator is not symmetric, or has negative curvature; ``rank`` not in 1 .. n.
        NonFiniteError: a product is NaN or infinite.

    Source: Frangella, Tropp, Udell, "Randomized Nystrom preconditioning" (2023), Algorithm 2.1.

    >>> from covector.linalg import DenseOperator
    >>> low = nystrom(DenseOperator(torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0]))), rank=3)
    >>> [round(abs(value), 3) for value in low.values.tolist()]
    [3.0, 1.0, 0.0]
    """
    check_symmetric(op, "nystrom")
    check_steps(rank, "rank")
    if rank > op.shape[0]:
        raise ArgumentError("rank", rank, f"at most n = {op.shape[0]}")
    sketch = torch.linalg.qr(probe_rows(op, rank, seed, "nystrom", "normal").mT)[0].mT
    image = finite(multiply(op, sketch), "nystrom")
    eps = torch.finfo(work_dtype(op)).eps
    shift = float(torch.linalg.vector_norm(image)) * eps  # makes the small matrix positive in spite of rounding
    image = image + shift * sketch
    small = (sketch @ image.mT).double()
    try:
        factor = torch.linalg.cholesky((small + small.mT) / 2)
    except LinAlgError as error:
        lowest = float(torch.linalg.eigvalsh((small + small.mT) / 2)[0])
        raise ArgumentError("op", f"curvature {lowest:.3g}", "a positive semidefinite operator") from error
    half = torch.linalg.solve_triangular(factor, image.double(), upper=False).to(image)
    _, singular, basis = torch.linalg.svd(half, full_matrices=False)
    return Nystrom(basis.contiguous(), (singular.double().square() - shift).clamp_min(0.0), op)
