"""The gradient in the dominant eigenspace of the Hessian: how much of it lies there, and how long that space stays."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg import Eigen, LinearOperator, eigsh
from covector.linalg.lanczos import norms
from covector.trees import Params, flatten, numel, unflatten

__all__ = ["DominantSubspace", "Placement", "fraction", "overlap", "project"]

V = TypeVar("V", Tensor, Params)


class Placement(NamedTuple):
    """Where a gradient lies.

    Attributes:
        fraction: of its squared norm in the span of the top eigenvectors; k / n for a random direction.
        alignment: the cosine between ``g`` and ``H g``.
        curvature: ``g^T H g / g^T g``.
    """

    fraction: float
    alignment: float
    curvature: float


class DominantSubspace:
    """The span of the k algebraically largest eigenvectors of a Hessian, kept up to date along training.

    Most of the gradient comes to lie in it, and it changes slowly. That is no sign of learning: the dominant part
    mostly oscillates, and steps without it make the same progress (:func:`project` takes it away).

    Args:
        op: symmetric; a :class:`~covector.curvature.Hessian` follows the live parameters.
        k: dimension, by habit the number of classes (default 10).
        tol: of the residuals, relative (default 1e-2).
        seed: of the first start.

    Attributes:
        eigen: the last :class:`~covector.linalg.Eigen`; measured at the first use, and by :meth:`refresh`.

    Source: Gur-Ari, Roberts, Dyer, "Gradient descent happens in a tiny subspace" (2018); Song, Ahn, Yun, "Does SGD
    really happen in tiny subspaces?" (ICLR 2025).

    >>> from covector.linalg import DenseOperator
    >>> space = DominantSubspace(DenseOperator(torch.diag(torch.arange(20.0))), k=2, tol=1e-6)
    >>> gradient = torch.zeros(20); gradient[[0, 19]] = 1.0
    >>> round(space.place(gradient).fraction, 4), round(space.refresh(), 4)
    (0.5, 1.0)
    """

    def __init__(self, op: LinearOperator, k: int = 10, tol: float = 1e-2, seed: int = 0) -> None:
        self.op, self.k, self.tol, self.seed = op, k, tol, seed
        self._eigen: Eigen | None = None

    @property
    def eigen(self) -> Eigen:
        """Eigenvalues and vectors as of the last refresh."""
        if self._eigen is None:
            self._eigen = eigsh(self.op, self.k, tol=self.tol, seed=self.seed)
        return self._eigen

    @property
    def basis(self) -> Tensor:
        """Orthonormal columns ``[n, k]``."""
        return self.eigen.vectors

    def refresh(self) -> float:
        """Find the eigenvectors at the live parameters; return the overlap of the space with the one before."""
        old = self.basis
        self._eigen = eigsh(self.op, self.k, tol=self.tol, start=old, seed=self.seed)
        return overlap(old, self.basis)

    def place(self, gradient: Tensor | Params) -> Placement:
        """Where a gradient lies with respect to the space of the last refresh, and the Hessian now (one product).

        Raises:
            NonFiniteError: the gradient is zero, NaN or infinite: it has no direction.
        """
        flat = _flat(gradient).to(self.basis)
        image = self.op @ flat
        inner = float(torch.sum(flat * image, dtype=torch.float64))
        lengths = norms(torch.stack([flat, image.to(flat)]))
        cosine = inner / max(float(lengths.prod()), torch.finfo(torch.float64).tiny)
        return Placement(fraction(self.basis, flat), cosine, inner / float(lengths[0]) ** 2)


def fraction(basis: Tensor, vector: Tensor | Params) -> float:
    """``|V^T g|^2 / |g|^2`` for orthonormal columns V ``[n, k]``.

    Raises:
        MismatchError: the vector has another length than the columns.
        NonFiniteError: the vector is zero, NaN or infinite: it has no direction.

    >>> round(fraction(torch.eye(3)[:, :1], torch.ones(3)), 4)
    0.3333
    """
    flat = _fitting(basis, vector)
    whole = float(norms(flat[None])[0])
    if not 0.0 < whole < float("inf"):
        raise NonFiniteError(f"a vector of norm {whole} has no direction to compare with a subspace")
    return float(norms((basis.mT @ flat)[None])[0] / whole) ** 2


def overlap(a: Tensor, b: Tensor) -> float:
    """``|A^T B|_F^2 / k`` for orthonormal columns ``[n, k]``: 1 for the same space, k / n for a random one.

    >>> overlap(torch.eye(3)[:, :2], torch.eye(3)[:, 1:])
    0.5
    """
    if a.shape != b.shape or a.ndim != 2:
        raise MismatchError(f"bases of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected two of one shape [n, k]")
    return float((a.mT @ b).double().square().sum()) / a.shape[1]


def project(basis: Tensor, vector: V, keep: str = "dominant") -> V:
    """The part of a vector in the span of a basis, or the rest.

    Args:
        basis: orthonormal columns ``[n, k]``.
        vector: ``[n]`` or Params, such as a gradient before the optimizer's step.
        keep: ``"dominant"`` for the part in the span, ``"bulk"`` for what is orthogonal to it.

    Returns:
        Of the kind of ``vector``.

    Raises:
        ArgumentError: ``keep`` is neither.
        MismatchError: the vector has another length than the columns.

    >>> project(torch.eye(3)[:, :1], torch.ones(3), keep="bulk")
    tensor([0., 1., 1.])
    """
    if keep not in ("dominant", "bulk"):
        raise ArgumentError("keep", keep, "'dominant' or 'bulk'")
    flat = _fitting(basis, vector)
    inside = basis @ (basis.mT @ flat)
    found = inside if keep == "dominant" else flat - inside
    return unflatten(found, vector) if isinstance(vector, dict) else found


def _flat(vector: Tensor | Params) -> Tensor:
    return flatten(vector) if isinstance(vector, dict) else vector.detach().reshape(-1)


def _fitting(basis: Tensor, vector: Tensor | Params) -> Tensor:
    size = numel(vector) if isinstance(vector, dict) else vector.numel()
    if basis.ndim != 2 or basis.shape[0] != size:
        raise MismatchError(f"a vector of {size} elements and a basis of shape {tuple(basis.shape)}: expected [n, k]")
    return _flat(vector).to(basis)
