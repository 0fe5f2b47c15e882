"""Norms of matrices, as what they make of a gradient: its dual norm and the direction of steepest ascent.

For a norm ``||.||`` the dual is ``||G||_* = max <G, T>`` over ``||T|| <= 1``, and the linear minimization oracle
``T(G)`` is where it is reached. Steepest descent steps by ``-lr ||G||_* T(G)``, a trust region by ``-lr T(G)``: the
choice of the norm is the choice of the optimizer, signs for the largest element, the polar factor for the largest
singular value. Matrices are ``output x input``; all functions work on batches ``[..., m, n]``.

Source: Bernstein and Newhouse, "Old optimizer, new norm: an anthology", 2024; Pethick et al., "Training deep learning
models with norm-constrained LMOs" (Scion), 2025.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from covector import linalg
from covector.errors import ArgumentError

__all__ = [
    "RMS2RMS",
    "BiasRMS",
    "ColNorm",
    "Frobenius",
    "MatrixNorm",
    "MaxAbs",
    "Norm",
    "RowNorm",
    "Spectral",
    "length",
]

_MATRIX = (-2, -1)


class Norm(ABC):
    """A norm of parameters, its dual, and where the dual is reached. Norms are values: equal where settings are.

    >>> norm, g = Spectral(method="svd"), torch.diag(torch.tensor([3.0, -1.0]))
    >>> norm.norm(g).item(), norm.dual(g).item(), norm.lmo(g).tolist()
    (3.0, 4.0, [[1.0, 0.0], [0.0, -1.0]])
    """

    @abstractmethod
    def norm(self, w: Tensor) -> Tensor:
        """``||W||``."""

    @abstractmethod
    def dual(self, g: Tensor) -> Tensor:
        """``||G||_*``."""

    @abstractmethod
    def lmo(self, g: Tensor) -> Tensor:
        """``T(G)``: of norm 1, and ``<G, T> = ||G||_*``; zero where the gradient is."""

    @abstractmethod
    def dualize(self, g: Tensor) -> Tensor:
        """``||G||_* T(G)``: what steepest descent subtracts at learning rate 1."""


class MatrixNorm(Norm):
    """A norm of matrices ``[..., m, n]``, given up to a factor that depends on the shape.

    >>> isinstance(Frobenius(), MatrixNorm)
    True
    """

    def norm(self, w: Tensor) -> Tensor:
        """``||W||``, ``[...]``; a vector counts as a matrix of one row."""
        w = _matrix(w)
        return self._norm(w) * self.weight(w)

    def dual(self, g: Tensor) -> Tensor:
        """``||G||_*``, ``[...]``."""
        g = _matrix(g)
        return self._dual(g) / self.weight(g)

    def lmo(self, g: Tensor) -> Tensor:
        """``T(G)``, shaped as the gradient."""
        matrix = _matrix(g)
        return (self._lmo(matrix) / self.weight(matrix)).reshape(g.shape)

    def dualize(self, g: Tensor) -> Tensor:
        """``||G||_* T(G)``, the dual norm as ``<G, T>``."""
        matrix = _matrix(g)
        direction = self.lmo(matrix)
        dual = (direction * matrix).sum(_MATRIX, keepdim=True)
        return (dual * direction).reshape(g.shape)

    def weight(self, w: Tensor) -> float:
        """What the plain norm is multiplied by."""
        return 1.0

    @abstractmethod
    def _norm(self, w: Tensor) -> Tensor: ...

    @abstractmethod
    def _dual(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def _lmo(self, g: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Frobenius(MatrixNorm):
    """``sqrt(sum w^2)``: steepest descent is SGD, the trust region normalized SGD.

    >>> Frobenius().lmo(torch.tensor([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def _norm(self, w: Tensor) -> Tensor:
        return length(w)

    def _dual(self, g: Tensor) -> Tensor:
        return length(g)

    def _lmo(self, g: Tensor) -> Tensor:
        return _unit(g, length(g, keepdim=True))


@dataclass(frozen=True)
class BiasRMS(Frobenius):
    """``||b|| / sqrt(size)``, for biases and gains.

    >>> BiasRMS().lmo(torch.tensor([5.0, 0.0, 0.0, 0.0])).tolist()
    [2.0, 0.0, 0.0, 0.0]
    """

    def weight(self, w: Tensor) -> float:
        return 1.0 / math.sqrt(w.shape[-1] * w.shape[-2])


@dataclass(frozen=True)
class MaxAbs(MatrixNorm):
    """The largest absolute element (l1 -> linf): steps are signs, as Adam's without averages.

    Args:
        fan: multiply by the number of inputs, Scion's ``Sign`` for the output layer (default false).

    >>> MaxAbs().lmo(torch.tensor([3.0, -4.0])).tolist(), MaxAbs().dual(torch.tensor([3.0, -4.0])).item()
    ([1.0, -1.0], 7.0)
    """

    fan: bool = False

    def weight(self, w: Tensor) -> float:
        return float(w.shape[-1]) if self.fan else 1.0

    def _norm(self, w: Tensor) -> Tensor:
        return length(w, torch.inf)

    def _dual(self, g: Tensor) -> Tensor:
        return length(g, 1)

    def _lmo(self, g: Tensor) -> Tensor:
        return g.sign()


@dataclass(frozen=True)
class Spectral(MatrixNorm):
    """The largest singular value (l2 -> l2): steps are polar factors, as Muon's.

    Args:
        method: of :func:`covector.linalg.msign`; ``"svd"`` is exact, ``"newton-schulz"`` what Muon uses.
        steps: of the iteration, where the method is one.

    >>> Spectral(method="svd").dual(torch.tensor([[0.0, 2.0], [1.0, 0.0]])).item()
    3.0
    """

    method: str = "auto"
    steps: int | None = None

    def _norm(self, w: Tensor) -> Tensor:
        return _singular_values(w)[..., 0]

    def _dual(self, g: Tensor) -> Tensor:
        return _singular_values(g).sum(-1)

    def _lmo(self, g: Tensor) -> Tensor:
        return linalg.msign(g, self.method, self.steps, check=False)


@dataclass(frozen=True)
class RMS2RMS(Spectral):
    """``taps sqrt(inputs / outputs) s_max``: how much a layer can raise the root mean square of what passes it.

    Args:
        method: as for :class:`Spectral`.
        steps: as for :class:`Spectral`.
        taps: elements of a convolution's kernel; its matrix is ``outputs x (inputs * taps)``.

    >>> round(RMS2RMS(method="svd").lmo(torch.ones(4, 1)).norm().item(), 4)
    2.0
    """

    taps: int = 1

    def weight(self, w: Tensor) -> float:
        return math.sqrt(w.shape[-1] / self.taps / w.shape[-2]) * self.taps


@dataclass(frozen=True)
class RowNorm(MatrixNorm):
    """``max_i ||row_i||_p``, the norm from l_q to linf; each row of a step is as long as it may be.

    Args:
        p: from 1 to infinity, default 2.
        scale: ``"rms"`` multiplies by ``sqrt(inputs)`` (RMS -> linf; Scion's for output layers), ``"none"`` not.

    >>> RowNorm(scale="none").lmo(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """

    p: float = 2.0
    scale: str = "rms"

    def __post_init__(self) -> None:
        if not self.p >= 1.0:
            raise ArgumentError("p", self.p, "a number from 1 to infinity")
        if self.scale not in ("rms", "none"):
            raise ArgumentError("scale", self.scale, "'rms' or 'none'")

    def weight(self, w: Tensor) -> float:
        return math.sqrt(w.shape[-1]) if self.scale == "rms" else 1.0

    def _norm(self, w: Tensor) -> Tensor:
        return length(w, self.p, dim=-1).amax(-1)

    def _dual(self, g: Tensor) -> Tensor:
        return length(g, _conjugate(self.p), dim=-1).sum(-1)

    def _lmo(self, g: Tensor) -> Tensor:
        return _rows_lmo(g, self.p)


@dataclass(frozen=True)
class ColNorm(MatrixNorm):
    """``max_j ||column_j||_p``, the norm from l1 to l_p; for embeddings, of which one column is read at a time.

    Args:
        p: from 1 to infinity, default 2.
        scale: ``"rms"`` divides by ``sqrt(outputs)`` (l1 -> RMS), ``"none"`` does not.

    >>> ColNorm(scale="none").dual(torch.tensor([[3.0, 0.0], [4.0, 2.0]])).item()
    7.0
    """

    p: float = 2.0
    scale: str = "rms"

    def __post_init__(self) -> None:
        RowNorm(self.p, self.scale)

    def weight(self, w: Tensor) -> float:
        return 1.0 / math.sqrt(w.shape[-2]) if self.scale == "rms" else 1.0

    def _norm(self, w: Tensor) -> Tensor:
        return length(w, self.p, dim=-2).amax(-1)

    def _dual(self, g: Tensor) -> Tensor:
        return length(g, _conjugate(self.p), dim=-2).sum(-1)

    def _lmo(self, g: Tensor) -> Tensor:
        return _rows_lmo(g.mT, self.p).mT


def length(x: Tensor, p: float = 2.0, dim: int | tuple[int, int] = _MATRIX, keepdim: bool = False) -> Tensor:
    """The p-norm of the elements of each matrix, or along one dimension.

    >>> length(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).item()
    5.0
    """
    value: Tensor = torch.linalg.vector_norm(x, p, dim=dim, keepdim=keepdim)
    return value


def _matrix(x: Tensor) -> Tensor:
    return x if x.ndim > 1 else x.reshape(1, -1)


def _unit(x: Tensor, size: Tensor) -> Tensor:
    """``x / size``, zero where the size is."""
    return torch.where(size > 0, x / torch.where(size > 0, size, 1.0), 0.0)


def _singular_values(x: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(x if x.dtype == torch.float64 else x.float())
    return values.to(x.dtype)


def _conjugate(p: float) -> float:
    """``q`` with ``1/p + 1/q = 1``."""
    if math.isinf(p):
        return 1.0
    return math.inf if p == 1.0 else p / (p - 1.0)


def _rows_lmo(g: Tensor, p: float) -> Tensor:
    """For each row the vector of unit p-norm with the largest product; ``|g|^(q-1)`` with its sign, normalized."""
    if math.isinf(p):
        return g.sign()
    if p == 1.0:
        where = g.abs().argmax(-1, keepdim=True)
        return torch.zeros_like(g).scatter_(-1, where, g.gather(-1, where).sign())
    largest = length(g, torch.inf, dim=-1, keepdim=True)
    scaled = _unit(g, largest)  # powers of large elements overflow
    powered = scaled.sign() * scaled.abs() ** (_conjugate(p) - 1.0)
    return _unit(powered, length(powered, p, dim=-1, keepdim=True))
