"""Functions of a symmetric operator times a vector, ``f(A) b``, and shifted systems, from one Lanczos basis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.linalg.checks import check_steps
from covector.linalg.lanczos import lanczos_rows, norms, tridiagonal
from covector.linalg.operator import LinearOperator
from covector.linalg.spectral import symmetric_eigh
from covector.linalg.vectors import as_rows, check_symmetric, finite
from covector.trees import Params

__all__ = ["Shifted", "apply_function", "shifted_solves"]

V = TypeVar("V", Tensor, Params)


def apply_function(op: LinearOperator, f: Callable[[Tensor], Tensor], b: V, steps: int = 32) -> V:
    """``f(A) b``, where f acts on the eigenvalues of a symmetric operator: ``|b| V^T f(T) e_1`` of a Lanczos run.

    Exact for polynomials of degree below ``steps``, for operators with at most ``steps`` different eigenvalues, and as
    good as the best such polynomial otherwise. ``lambda x: x.abs().rsqrt()`` and the like are functions that no
    polynomial approximates near zero: give them a floor, ``x.abs().clamp_min(damping)``.

    Args:
        op: symmetric, ``n x n``.
        f: of float64 eigenvalues, elementwise.
        b: ``[n]``, ``[n, k]`` or Params.
        steps: products for each vector (default 32); ``steps * n`` numbers are kept.

    Returns:
        Of the kind of ``b``.

    Raises:
        ArgumentError: the operator is not symmetric, or ``steps`` below 1.
        MismatchError: ``b`` does not fit the operator.
        NonFiniteError: a product, or f at a Ritz value, is NaN or infinite.

    Source: Druskin and Knizhnerman (1989); Higham, "Functions of matrices", section 13.2.

    >>> from covector.linalg import DenseOperator
    >>> op = DenseOperator(torch.diag(torch.tensor([4.0, -9.0])))
    >>> apply_function(op, lambda x: 1 / x.abs(), torch.tensor([4.0, 9.0]))
    tensor([1.0000, 1.0000])
    """
    check_symmetric(op, "apply_function")
    check_steps(steps)
    rows, restore = as_rows(op, b, "b")
    alpha, beta, basis, _ = lanczos_rows(op, rows, steps)
    values, small = symmetric_eigh(tridiagonal(alpha, beta))
    # a run that ended early goes on with zeros: nodes of weight zero, where f may be anything
    seen = small[:, 0].abs() > torch.finfo(torch.float64).eps
    image = finite(torch.where(seen, f(torch.where(seen, values, values[:, -1:])), 0.0), "apply_function: f")
    coefficients = torch.einsum("pij,pj->pi", small, image * small[:, 0]) * norms(rows)[:, None]
    return restore(torch.einsum("pi,pin->pn", coefficients.to(basis), basis))  # type: ignore[return-value]


class Shifted(NamedTuple):
    """Solutions of ``(A + shift I) x = b`` for many shifts.

    Attributes:
        x: ``[s, n]``, a row for each shift.
        residuals: ``||b - (A + shift I) x|| / ||b||``, float64 ``[s]``.
        norms: ``||x||``, float64 ``[s]``.
    """

    x: Tensor
    residuals: Tensor
    norms: Tensor


def shifted_solves(op: LinearOperator, b: Tensor | Params, shifts: Sequence[float], steps: int = 32) -> Shifted:
    """``(A + shift I) x = b`` for many shifts at the price of one: Krylov spaces do not change with a shift.

    For a damping or a trust region radius that has to be searched. Galerkin's condition is used, so that each answer is
    the one of conjugate gradients after ``steps`` steps; ``A + shift I`` may be indefinite but not singular.

    Args:
        op: symmetric, ``n x n``.
        b: ``[n]`` or Params.
        shifts: any number of them.
        steps: products in all (default 32).

    Returns:
        A :class:`Shifted`.

    Raises:
        ArgumentError: the operator is not symmetric, ``steps`` below 1, or no shift is given.
        MismatchError: ``b`` is not one vector that fits the operator.
        NonFiniteError: a product is NaN or infinite, or a shift makes the projected system singular.

    >>> from covector.linalg import DenseOperator
    >>> shifted_solves(DenseOperator(torch.diag(torch.tensor([1.0, 3.0]))), torch.tensor([2.0, 4.0]), [1.0, 3.0]).x
    tensor([[1.0000, 1.0000],
            [0.5000, 0.6667]])
    """
    check_symmetric(op, "shifted_solves")
    check_steps(steps)
    if not len(shifts):
        raise ArgumentError("shifts", list(shifts), "at least one number")
    rows, _ = as_rows(op, b, "b")
    if len(rows) != 1:
        raise MismatchError(f"b has shape ({op.shape[0]}, {len(rows)}): shifted_solves takes one vector [n]")
    alpha, beta, basis, _ = lanczos_rows(op, rows, steps)
    values, small = symmetric_eigh(tridiagonal(alpha[0], beta[0]))
    amounts = torch.as_tensor(shifts, dtype=torch.float64, device=rows.device)
    inverse = finite(1.0 / (values + amounts[:, None]), "shifted_solves")
    coefficients = (inverse * small[0]) @ small.mT
    length = norms(rows)[0]
    x = (coefficients * length).to(basis) @ basis[0]
    return Shifted(x, beta[0, -1] * coefficients[:, -1].abs(), length * norms(coefficients))
