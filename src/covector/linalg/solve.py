"""Linear systems by products: conjugate gradients for positive operators, MINRES for indefinite ones."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.linalg.checks import check_choice, check_steps
from covector.linalg.operator import LinearOperator
from covector.linalg.trace import inner
from covector.linalg.vectors import as_rows, check_symmetric, finite, multiply
from covector.trees import Params

__all__ = ["Solution", "cg", "minres"]

V = TypeVar("V", Tensor, Params)
TINY = torch.finfo(torch.float64).tiny


class Solution(NamedTuple, Generic[V]):
    """What a solver found.

    Attributes:
        x: the solution, of the kind of the right side.
        residual: ``||b - (A + shift) x|| / ||b||``, the largest of all right sides.
        steps: products with the operator for each right side.
        converged: whether the residual is at most the tolerance.
        indefinite: whether :func:`cg` met a direction without positive curvature, and stopped there.
    """

    x: V
    residual: float
    steps: int
    converged: bool
    indefinite: bool = False


@torch.no_grad()
def cg(
    op: LinearOperator,
    b: V,
    x0: V | None = None,
    shift: float = 0.0,
    preconditioner: LinearOperator | None = None,
    tol: float = 1e-5,
    max_steps: int = 100,
    *,
    on_indefinite: str = "raise",
) -> Solution[V]:
    """Solve ``(A + shift I) x = b`` for a positive definite operator, by conjugate gradients.

    Args:
        op: symmetric, ``n x n``.
        b: ``[n]``, ``[n, k]`` (k systems side by side) or Params.
        x0: where to start, of the kind of ``b`` (default zero).
        shift: added to the diagonal (default 0): the damping.
        preconditioner: an operator near ``(A + shift I)^-1``, positive; see :meth:`Nystrom.preconditioner`.
        tol: stop when ``||residual|| <= tol ||b||`` (default 1e-5).
        max_steps: most products for each right side (default 100).
        on_indefinite: a direction with ``p^T (A + shift) p <= 0`` raises (``"raise"``, default), or ends the search
            with what was found before (``"stop"``, as truncated Newton methods do); ``b`` itself if it is the first.

    Returns:
        A :class:`Solution`.

    Raises:
        ArgumentError: the operator is not symmetric, or not positive on the space that was searched.
        MismatchError: ``b``, ``x0`` or the preconditioner does not fit the operator.
        NonFiniteError: a product is NaN or infinite.

    Source: Hestenes and Stiefel (1952).

    >>> from covector.linalg import DenseOperator
    >>> cg(DenseOperator(torch.diag(torch.tensor([2.0, 4.0]))), torch.tensor([2.0, 2.0])).x
    tensor([1.0000, 0.5000])
    """
    check_choice("on_indefinite", on_indefinite, ("raise", "stop"))
    right, restore = as_rows(op, b, "b")
    x, r = _begin(op, right, x0, shift, preconditioner, max_steps, "cg")
    goal = tol * inner(right, right).sqrt()
    z = r if preconditioner is None else multiply(preconditioner, r)
    p, rz, steps, indefinite = z.clone(), inner(r, z), 0, False
    while steps < max_steps and not bool((inner(r, r).sqrt() <= goal).all()):
        image = _product(op, p, shift)
        curvature = finite(inner(p, image), "cg")
        steps += 1
        active = inner(r, r).sqrt() > goal
        if bool((active & (curvature <= 0)).any()):
            if on_indefinite == "raise":
                found = float((curvature / inner(p, p))[active].min())
                raise ArgumentError(
                    "op", f"curvature {found:.3g}", "a positive operator (else minres, or a larger shift)"
                )
            indefinite = True
            if steps == 1 and x0 is None:
                x = p
            break
        a = torch.where(active, rz / curvature.clamp_min(TINY), 0.0)[:, None].to(x)
        x, r = x + a * p, r - a * image
        z = r if preconditioner is None else multiply(preconditioner, r)
        rz, old = inner(r, z), rz
        p = z + (rz / old.clamp_min(TINY))[:, None].to(x) * p
    residual = _residual(op, right, x, shift) if indefinite else _relative(inner(r, r).sqrt(), right)
    return Solution(restore(x), residual, steps, not indefinite and residual <= tol, indefinite)  # type: ignore[arg-type]


@torch.no_grad()
def minres(
    op: LinearOperator,
    b: V,
    x0: V | None = None,
    shift: float = 0.0,
    preconditioner: LinearOperator | None = None,
    tol: float = 1e-5,
    max_steps: int = 100,
) -> Solution[V]:
    """Solve ``(A + shift I) x = b`` for a symmetric operator of any sign, with the smallest residual at each step.

    Where the operator is singular and ``b`` has a part in its kernel, the residual cannot vanish: the answer then is a
    least squares solution and ``converged`` is False.

    Args:
        op: symmetric, ``n x n``.
        b: ``[n]``, ``[n, k]`` (k systems side by side) or Params.
        x0: where to start, of the kind of ``b`` (default zero).
        shift: added to the diagonal (default 0).
        preconditioner: a positive operator near ``|A + shift I|^-1``; the residual is then small in its norm.
        tol: stop when ``||residual|| <= tol ||b||`` (default 1e-5).
        max_steps: most products for each right side (default 100).

    Returns:
        A :class:`Solution`.

    Raises:
        ArgumentError: the operator is not symmetric, the preconditioner not positive.
        MismatchError: ``b``, ``x0`` or the preconditioner does not fit the operator.
        NonFiniteError: a product is NaN or infinite.

    Source: Paige and Saunders, "Solution of sparse indefinite systems of linear equations" (1975).

    >>> from covector.linalg import DenseOperator
    >>> minres(DenseOperator(torch.diag(torch.tensor([2.0, -4.0]))), torch.tensor([2.0, 2.0])).x
    tensor([ 1.0000, -0.5000])
    """
    right, restore = as_rows(op, b, "b")
    x, r = _begin(op, right, x0, shift, preconditioner, max_steps, "minres")
    zeros = torch.zeros(len(r), dtype=torch.float64, device=r.device)
    v_old, v = torch.zeros_like(r), r
    z = v if preconditioner is None else multiply(preconditioner, v)
    beta = _root(inner(v, z))
    d, d_old = torch.zeros_like(x), torch.zeros_like(x)
    eta, beta_old = beta, zeros + 1.0
    c, c_old, s, s_old = zeros + 1.0, zeros + 1.0, zeros, zeros
    length = right if preconditioner is None else multiply(preconditioner, right)
    goal = tol * inner(right, length).sqrt()
    rounding = 10 * torch.finfo(x.dtype).eps
    scale, steps = zeros, 0
    while steps < max_steps and not bool((eta.abs() <= goal).all()):
        active = (eta.abs() > goal) & (beta > rounding * scale)
        if not bool(active.any()):  # an invariant space: no product will change the answer
            break
        unit = z / _column(beta, z)
        image = _product(op, unit, shift)
        steps += 1
        alpha = finite(inner(unit, image), "minres")
        v_new = image - _column(alpha / _safe(beta), v) * v - _column(beta / _safe(beta_old), v) * v_old
        z = v_new if preconditioner is None else multiply(preconditioner, v_new)
        beta_new = _root(inner(v_new, z))
        scale = torch.maximum(scale, alpha.abs() + beta_new)
        delta, gamma = c * alpha - c_old * s * beta, s * alpha + c_old * c * beta
        epsilon = s_old * beta
        rho = (delta.square() + beta_new.square()).sqrt()
        active &= rho > rounding * scale  # else this direction is in the kernel
        c_new, s_new = delta / _safe(rho), beta_new / _safe(rho)
        d_new = (unit - _column(gamma, d) * d - _column(epsilon, d) * d_old) / _column(_safe(rho), d)
        x = x + _column(torch.where(active, c_new * eta, 0.0), d) * d_new
        eta = torch.where(active, -s_new * eta, eta)
        v_old, v, d_old, d = v, v_new, d, d_new
        beta_old, beta, c_old, c, s_old, s = beta, beta_new, c, c_new, s, s_new
    residual = _residual(op, right, x, shift)
    return Solution(restore(x), residual, steps, residual <= tol)  # type: ignore[arg-type]


def _begin(
    op: LinearOperator,
    right: Tensor,
    x0: Tensor | Params | None,
    shift: float,
    preconditioner: LinearOperator | None,
    max_steps: int,
    method: str,
) -> tuple[Tensor, Tensor]:
    check_symmetric(op, method)
    check_steps(max_steps, "max_steps")
    if preconditioner is not None and preconditioner.shape != op.shape:
        raise MismatchError(f"the preconditioner has shape {preconditioner.shape}, the operator {op.shape}")
    if x0 is None:
        return torch.zeros_like(right), right.clone()
    x = as_rows(op, x0, "x0")[0].clone()
    if x.shape != right.shape:
        raise MismatchError(f"x0 holds {len(x)} vectors, b {len(right)}")
    return x, right - _product(op, x, shift)


def _product(op: LinearOperator, rows: Tensor, shift: float) -> Tensor:
    image = multiply(op, rows)
    return image.add(rows, alpha=shift) if shift else image


def _residual(op: LinearOperator, right: Tensor, x: Tensor, shift: float) -> float:
    left = right - _product(op, x, shift)
    return _relative(inner(left, left).sqrt(), right)


def _relative(lengths: Tensor, right: Tensor) -> float:
    return float((lengths / inner(right, right).sqrt().clamp_min(TINY)).max())


def _root(squares: Tensor) -> Tensor:
    if bool((squares < 0).any()):
        raise ArgumentError("preconditioner", f"v^T P v = {float(squares.min()):.3g}", "a positive operator")
    return squares.sqrt()


def _safe(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values[:, None].to(like)
