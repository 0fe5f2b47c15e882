"""Differentiable square roots of symmetric positive matrices, whose backward pass is a Lyapunov equation."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from covector.errors import MismatchError
from covector.linalg.checks import check_choice, check_finite, check_square, check_steps, working_dtype
from covector.linalg.lyapunov import LYAPUNOV_METHODS, solve
from covector.linalg.roots import newton_schulz_roots, pade_root, taylor_root
from covector.linalg.spectral import symmetric_eigh, symmetrize

__all__ = ["inv_sqrtm", "sqrtm", "sqrtm_residual"]

METHODS = ("auto", "eigh", "mpa", "mtp", "newton-schulz")


def sqrtm(
    matrix: Tensor, method: str = "auto", *, backward: str | None = None, steps: int = 5, backward_steps: int = 8
) -> Tensor:
    """``A^(1/2)`` of symmetric positive semidefinite matrices, differentiable.

    ``eigh`` is exact. The others approximate, well only near the identity (relative errors measured in float64):

    ============= ================================================== ======= ======== ========
    method        what                                               cond 10 cond 100 cond 1e3
    ============= ================================================== ======= ======== ========
    mtp           Taylor polynomial of degree 10                     5e-2    2e-1     3e-1
    mpa           Pade approximant [5/5], one linear solve           5e-3    6e-2     1e-1
    newton-schulz coupled iteration, five steps                      1e-2    8e-2     7e-2
    ============= ================================================== ======= ======== ========

    They serve whitening layers with a ridge, not preconditioners. :func:`sqrtm_residual` tells.

    The gradient ``K`` solves ``X K + K X = Xbar`` with ``X`` the root: no differences of eigenvalues, so that repeated
    eigenvalues do no harm.

    Args:
        matrix: ``[..., n, n]``; its symmetric part is used.
        method: see above; ``"auto"`` is eigh.
        backward: ``"eigh"`` (exact) or ``"sign"`` (products only) for the Lyapunov equation; default: sign on a GPU for
            methods other than eigh, else eigh, which takes less time on a CPU.
        steps: of newton-schulz (default 5).
        backward_steps: of sign (default 8).

    Returns:
        ``[..., n, n]``, symmetric, in the dtype of ``matrix``.

    Raises:
        ArgumentError: not square, an unknown method, ``steps`` below 1.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    Source: Song, Sebe, Wang, "Fast differentiable matrix square root" (ICLR 2022).

    >>> sqrtm(torch.diag(torch.tensor([9.0, 4.0])))
    tensor([[3., 0.],
            [0., 2.]])
    """
    return _root(matrix, method, False, backward, steps, backward_steps)


def inv_sqrtm(
    matrix: Tensor, method: str = "auto", *, backward: str | None = None, steps: int = 5, backward_steps: int = 8
) -> Tensor:
    """``A^(-1/2)`` of symmetric positive definite matrices, differentiable; see :func:`sqrtm`.

    The approximations are worse than those of the root: at condition number 1e3 they are off by half and more.
    Nothing is added to the diagonal here: a matrix that may be singular needs a ridge first.

    Args:
        matrix: ``[..., n, n]``; its symmetric part is used.
        method: as for :func:`sqrtm`.
        backward: as for :func:`sqrtm`.
        steps: as for :func:`sqrtm`.
        backward_steps: as for :func:`sqrtm`.

    Returns:
        ``[..., n, n]``, symmetric, in the dtype of ``matrix``.

    Raises:
        ArgumentError: not square, an unknown method, ``steps`` below 1.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    >>> inv_sqrtm(torch.diag(torch.tensor([4.0, 0.25])))
    tensor([[0.5000, 0.0000],
            [0.0000, 2.0000]])
    """
    return _root(matrix, method, True, backward, steps, backward_steps)


def sqrtm_residual(matrix: Tensor, root: Tensor, inverse: bool = False) -> Tensor:
    """How wrong a root is: ``||X X - A|| / ||A||``, for an inverse root ``||X A X - I|| / sqrt(n)`` (Frobenius).

    Args:
        matrix: ``[..., n, n]``.
        root: what :func:`sqrtm` or :func:`inv_sqrtm` returned for it.
        inverse: ``root`` is an inverse root.

    Returns:
        ``[...]``.

    >>> sqrtm_residual(torch.eye(2) * 4, torch.eye(2) * 2).item()
    0.0
    """
    check_square(matrix)
    if matrix.shape != root.shape:
        raise MismatchError(f"matrix has shape {tuple(matrix.shape)}, root {tuple(root.shape)}")
    aim = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix) if inverse else matrix
    found = root @ matrix @ root if inverse else root @ root
    off: Tensor = torch.linalg.vector_norm(found - aim, dim=(-2, -1))
    length: Tensor = torch.linalg.vector_norm(aim, dim=(-2, -1))
    return off / length


def _root(matrix: Tensor, method: str, inverse: bool, backward: str | None, steps: int, backward_steps: int) -> Tensor:
    check_square(matrix)
    check_choice("method", method, METHODS)
    method = "eigh" if method == "auto" else method
    if backward is None:
        backward = "eigh" if method == "eigh" or matrix.device.type == "cpu" else "sign"
    check_choice("backward", backward, LYAPUNOV_METHODS)
    check_steps(steps)
    check_steps(backward_steps, "backward_steps")
    if matrix.numel() == 0:
        return matrix.clone()
    check_finite(matrix)
    a = symmetrize(matrix.to(working_dtype(matrix)))
    return cast(Tensor, _Root.apply(a, method, inverse, backward, steps, backward_steps)).to(matrix.dtype)


class _Root(torch.autograd.Function):
    """``dX``: with ``X`` the root, ``X dX + dX X = dA``; with ``Y`` the inverse root, ``Y dY + dY Y = -Y^2 dA Y^2``."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, method: str, inverse: bool, backward: str, steps: int, backward_steps: int
    ) -> Tensor:
        values: Tensor | None = None
        vectors: Tensor | None = None
        if method == "eigh":
            squares, vectors = symmetric_eigh(a)
            values = _powers(squares, inverse)
            root = (vectors * values.unsqueeze(-2)) @ vectors.mT
        elif method == "newton-schulz":
            root = newton_schulz_roots(a, steps)[int(inverse)]
        else:
            root = (pade_root if method == "mpa" else taylor_root)(a, inverse)
        root = symmetrize(root)
        ctx.save_for_backward(root, values, vectors)
        ctx.inverse, ctx.exact, ctx.steps = inverse, backward == "eigh", backward_steps
        return root

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        root, values, vectors = ctx.saved_tensors
        right = symmetrize(upstream[0])
        if ctx.inverse:
            square = root @ root
            right = -(square @ right @ square)
        eigen = None
        if ctx.exact:
            eigen = (values, vectors) if values is not None else symmetric_eigh(root.detach())
        return symmetrize(solve(root, right, ctx.steps, eigen)), None, None, None, None, None


def _powers(squares: Tensor, inverse: bool) -> Tensor:
    if inverse:
        return squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt()
    return squares.clamp_min(0.0).sqrt()
