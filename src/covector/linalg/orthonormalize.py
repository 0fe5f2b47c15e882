"""Orthonormal bases of the columns of tall matrices, by Householder QR or by two Cholesky factorizations."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.checks import check_choice, check_finite, check_matrix, working_dtype

__all__ = ["orthonormalize", "reorthonormalize"]


def orthonormalize(matrix: Tensor, method: str = "auto", *, check: bool = True) -> Tensor:
    """The factor ``Q`` of ``A = Q R`` with a positive diagonal of ``R``: unique, whichever method finds it.

    ``cholesky`` factors ``A^T A = R^T R``, takes ``Q = A R^(-1)`` and does so twice (Cholesky-QR2), products of
    matrices mostly. It needs a condition number below about 1e3 in float32 (1e7 in float64), and falls back to ``qr``
    where a factorization fails.

    Args:
        matrix: ``[..., m, r]`` with m >= r.
        method: ``"qr"``, ``"cholesky"``, or ``"auto"``: qr on a CPU, cholesky on a GPU.
        check: refuse NaN and infinities; on a GPU this waits for the device.

    Returns:
        ``[..., m, r]`` with orthonormal columns, in the dtype of ``matrix``.

    Raises:
        ArgumentError: not a matrix, more columns than rows, or an unknown method.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    Source: Fukaya, Nakatsukasa, Yanagisawa, Yamamoto, "CholeskyQR2" (2014).

    >>> orthonormalize(torch.tensor([[3.0], [4.0]])).flatten()
    tensor([0.6000, 0.8000])
    """
    check_matrix(matrix)
    check_choice("method", method, ("auto", "qr", "cholesky"))
    if matrix.shape[-2] < matrix.shape[-1]:
        raise ArgumentError("matrix.shape", tuple(matrix.shape), "at least as many rows as columns; pass matrix.mT")
    if matrix.numel() == 0:
        return matrix.clone()
    if check:
        check_finite(matrix)
    if method == "auto":
        method = "cholesky" if matrix.device.type == "cuda" else "qr"
    a = matrix.to(working_dtype(matrix))
    return (_qr(a) if method == "qr" else _cholesky(a)).to(matrix.dtype)


def reorthonormalize(basis: Tensor) -> Tensor:
    """Take the rounding out of a nearly orthonormal basis ``[..., m, r]`` by one Newton-Schulz step; its span stays.

    >>> reorthonormalize(torch.tensor([[1.001], [0.0]])).flatten()
    tensor([1.0000, 0.0000])
    """
    return 1.5 * basis - 0.5 * (basis @ (basis.mT @ basis))


def _qr(a: Tensor) -> Tensor:
    q, r = torch.linalg.qr(a)
    signs = r.diagonal(dim1=-2, dim2=-1).sign()
    signed: Tensor = q * torch.where(signs == 0, 1.0, signs).unsqueeze(-2)
    return signed


def _cholesky(a: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(a, torch.inf, dim=(-2, -1), keepdim=True)
    q: Tensor = a / length.clamp_min(torch.finfo(a.dtype).tiny)
    for _ in range(2):
        factor, info = torch.linalg.cholesky_ex(q.mT @ q, upper=True)
        if bool(info.any()):
            return _qr(a)
        q = torch.linalg.solve_triangular(factor, q, upper=True, left=False)
    return q
