"""The Lyapunov equation ``X K + K X = G`` for symmetric positive ``X``: the derivative of the matrix square root."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from covector.errors import MismatchError
from covector.linalg.checks import check_choice, check_finite, check_square, check_steps, working_dtype
from covector.linalg.spectral import symmetric_eigh, symmetrize

__all__ = ["LYAPUNOV_METHODS", "lyapunov", "solve"]

LYAPUNOV_METHODS = ("eigh", "sign")


def lyapunov(
    matrix: Tensor, right: Tensor, method: str = "eigh", *, steps: int = 8, eigen: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Solve ``X K + K X = G`` for ``K``, differentiably as often as wanted.

    ``eigh`` is exact: in the eigenvectors V of X with eigenvalues r, ``K = V [(V^T G V)_ij / (r_i + r_j)] V^T``,
    without the ``1 / (r_i - r_j)`` that makes the derivative of eigh itself blow up. ``sign`` iterates towards the
    matrix sign of ``[[X, G], [0, -X]]``, products only; 8 steps are off by 1e-3 when X has condition number 3, and by
    0.03 and more at 30.

    Args:
        matrix: X, ``[..., n, n]``; its symmetric part is used.
        right: G, of the same shape, symmetric or not.
        method: ``"eigh"`` or ``"sign"``.
        steps: of ``sign`` (default 8, the paper's).
        eigen: eigenvalues and eigenvectors of X where they are known; saves their computation.

    Returns:
        K, ``[..., n, n]``. Directions in which ``r_i + r_j`` is zero to rounding give zero.

    Raises:
        ArgumentError: not square, an unknown method, ``steps`` below 1.
        MismatchError: the shapes or dtypes differ.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    Source: Song, Sebe, Wang, "Fast differentiable matrix square root" (2022), Section 3.2.

    >>> lyapunov(torch.eye(2), torch.tensor([[2.0, 4.0], [4.0, 6.0]]))
    tensor([[1., 2.],
            [2., 3.]])
    """
    check_square(matrix)
    check_square(right, "right")
    check_choice("method", method, LYAPUNOV_METHODS)
    check_steps(steps)
    if matrix.shape != right.shape or matrix.dtype != right.dtype:
        raise MismatchError(
            f"matrix has shape {tuple(matrix.shape)} and {matrix.dtype}, right {tuple(right.shape)} and {right.dtype}"
        )
    if matrix.numel() == 0:
        return right.clone()
    check_finite(matrix)
    check_finite(right, "right")
    work = working_dtype(matrix)
    x, g = symmetrize(matrix.to(work)), right.to(work)
    if eigen is None and method == "eigh":
        eigen = symmetric_eigh(x.detach())
    return solve(x, g, steps, eigen).to(matrix.dtype)


def solve(x: Tensor, g: Tensor, steps: int, eigen: tuple[Tensor, Tensor] | None) -> Tensor:
    """As :func:`lyapunov` without its checks: by the eigenvectors where given, else by the sign iteration."""
    values, vectors = eigen if eigen is not None else (None, None)
    return cast(Tensor, _Lyapunov.apply(x, g, steps, values, vectors))


class _Lyapunov(torch.autograd.Function):
    """Its derivative is another Lyapunov equation: with ``X W + W X = Kbar``, ``Gbar = W``,
    ``Xbar = -(W K^T + K^T W)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, steps: int, values: Tensor | None, vectors: Tensor | None) -> Tensor:
        k = _by_sign(x, g, steps) if values is None or vectors is None else _by_eigenvectors(g, values, vectors)
        ctx.save_for_backward(x, k, values, vectors)
        ctx.steps = steps
        return k

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, k, values, vectors = ctx.saved_tensors
        w = solve(x, upstream[0], ctx.steps, None if values is None else (values, vectors))
        return symmetrize(-(w @ k.mT + k.mT @ w)), w, None, None, None


def _by_eigenvectors(g: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    sums = values.unsqueeze(-1) + values.unsqueeze(-2)
    floor = values[..., -1, None, None].abs() * torch.finfo(g.dtype).eps
    inner = torch.where(sums > floor, (vectors.mT @ g @ vectors) / sums.clamp_min(torch.finfo(g.dtype).tiny), 0.0)
    k: Tensor = vectors @ inner @ vectors.mT
    return k


def _by_sign(x: Tensor, g: Tensor, steps: int) -> Tensor:
    """``B -> I`` and ``C -> 2 K`` by ``C <- (C (3 I - B^2) - B^2 C + B C B) / 2``, ``B <- B (3 I - B^2) / 2``."""
    length = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    b: Tensor = x / length
    c: Tensor = g / length
    eye3 = 3 * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(steps):
        square = b @ b
        c = (c @ (eye3 - square) - square @ c + b @ c @ b) / 2
        b = b @ (eye3 - square) / 2
    return c / 2
