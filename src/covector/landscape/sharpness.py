"""Sharpness along training: the largest eigenvalue of the Hessian, followed from step to step."""

from __future__ import annotations

from torch import Tensor

from covector.linalg import LinearOperator, eigsh

__all__ = ["Sharpness"]


class Sharpness:
    """The largest eigenvalue of an operator that changes slowly; each answer starts from the one before.

    Args:
        op: symmetric; a :class:`~covector.curvature.Hessian` follows the live parameters.
        tol: of the residual, relative (default 1e-3; the eigenvalue's error is of the order of its square).
        seed: of the first start.

    Attributes:
        vector: the last eigenvector ``[n]``, or None.
        products: that the last measurement cost.

    >>> import torch
    >>> from covector.linalg import DenseOperator
    >>> sharpness = Sharpness(DenseOperator(torch.diag(torch.tensor([3.0, 1.0]))))
    >>> round(sharpness.measure(), 3), round(sharpness.measure(), 3), sharpness.products
    (3.0, 3.0, 1)
    """

    def __init__(self, op: LinearOperator, tol: float = 1e-3, seed: int = 0) -> None:
        self.op, self.tol, self.seed = op, tol, seed
        self.vector: Tensor | None = None
        self.products = 0

    def measure(self) -> float:
        """The largest eigenvalue now."""
        found = eigsh(self.op, 1, tol=self.tol, start=self.vector, seed=self.seed)
        self.vector, self.products = found.vectors[:, 0], found.products
        return float(found.values[0])
