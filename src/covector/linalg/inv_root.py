"""Inverse p-th roots ``A^(-1/p)`` of symmetric positive matrices, in batches: the preconditioners of Shampoo."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.checks import check_choice, check_finite, check_square, check_steps, working_dtype
from covector.linalg.spectral import power_iteration, symmetric_eigh, symmetrize

__all__ = ["inv_root"]

GROWTH = 1.2  # an error that grows by more is rounding that takes over


def inv_root(
    matrix: Tensor,
    p: int,
    method: str = "auto",
    ridge: float = 1e-6,
    relative: bool = True,
    *,
    steps: int = 40,
    check: bool = True,
) -> Tensor:
    """``(A + ridge I)^(-1/p)`` for symmetric positive semidefinite ``A``.

    ``eigh`` is exact: a negative smallest eigenvalue, which rounding leaves, is shifted to zero, and where LAPACK does
    not converge float64 is tried. ``newton`` is the coupled iteration of Guo and Higham, products of matrices only:
    with ``M = z A``, ``X = z^(1/p) I`` it repeats ``T = ((p + 1) I - M) / p``, ``X <- X T``, ``M <- T^p M``. Each
    matrix of a batch stops by itself, without waiting for the device, when ``M`` is the identity or its error grows.
    In float32 its relative error is about 1e-6, 1e-5 and 1e-3 at condition numbers 1e2, 1e4 and 1e6: the ridge has to
    keep it there.

    Args:
        matrix: ``[..., n, n]``; its symmetric part is used.
        p: the root, a whole number of at least 1.
        method: ``"eigh"``, ``"newton"``, or ``"auto"``: eigh on a CPU, newton on a GPU up to n = 1024.
        ridge: added to the diagonal (default 1e-6).
        relative: the ridge counts in units of the largest eigenvalue (default) or as it is.
        steps: most iterations of ``newton`` (default 40).
        check: refuse NaN and infinities; on a GPU this waits for the device.

    Returns:
        ``[..., n, n]``, symmetric, in the dtype of ``matrix``. Computed in float64 for float64, else in float32.
        The zero matrix with a relative ridge counts as the smallest normal number times the identity.

    Raises:
        ArgumentError: not square, an unknown method, ``p`` or ``steps`` below 1, a negative ridge.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    Source: Gupta, Koren, Singer, "Shampoo" (2018); Anil et al. (2020), "Scalable second order optimization"; Guo and
    Higham (2006), "A Schur-Newton method for the matrix p-th root and its inverse".

    >>> inv_root(torch.diag(torch.tensor([16.0, 81.0])), 4, ridge=0.0).diagonal().mul(6).round(decimals=4)
    tensor([3., 2.])
    """
    check_square(matrix)
    check_choice("method", method, ("auto", "eigh", "newton"))
    check_steps(p, "p")
    check_steps(steps)
    if not 0.0 <= ridge < float("inf"):
        raise ArgumentError("ridge", ridge, "a finite number of at least 0")
    if matrix.numel() == 0:
        return matrix.clone()
    if check:
        check_finite(matrix)
    if method == "auto":
        method = "newton" if matrix.device.type == "cuda" and matrix.shape[-1] <= 1024 else "eigh"
    a = symmetrize(matrix.to(working_dtype(matrix)))
    tiny = torch.finfo(a.dtype).tiny
    largest = torch.linalg.vector_norm(a, torch.inf, dim=(-2, -1), keepdim=True)
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    scale = largest.clamp_min(tiny)
    if relative:  # for the zero matrix: a ridge in units of nothing would be nothing
        a = torch.where(largest > tiny, a / scale, eye)
        root = (_eigh if method == "eigh" else _newton)(a, p, ridge, eye, steps)
    else:
        a, scale = a + ridge * eye, scale + ridge
        root = (_eigh if method == "eigh" else _newton)(a / scale, p, 0.0, eye, steps)
    return symmetrize(root * scale ** (-1.0 / p)).to(matrix.dtype)


def _eigh(a: Tensor, p: int, ridge: float, eye: Tensor, steps: int) -> Tensor:
    values, vectors = symmetric_eigh(a)
    values = values - values[..., :1].clamp_max(0.0)
    values = (values + ridge * values[..., -1:]).clamp_min(torch.finfo(a.dtype).tiny)
    root: Tensor = (vectors * values.pow(-1.0 / p).unsqueeze(-2)) @ vectors.mT
    return root


def _newton(a: Tensor, p: int, ridge: float, eye: Tensor, steps: int) -> Tensor:
    if ridge:
        a = a + (ridge * power_iteration(a)[0])[..., None, None] * eye
    z = (1 + p) / (2 * torch.linalg.vector_norm(a, dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(a.dtype).tiny))
    x: Tensor = eye * z ** (1.0 / p)
    m = a * z
    tolerance = 1e-6 if a.dtype == torch.float32 else 1e-12
    error = _distance(m, eye)
    active = error > tolerance
    for _ in range(steps):
        t = ((p + 1) * eye - m) / p
        new_m = torch.linalg.matrix_power(t, p) @ m
        new_error = _distance(new_m, eye)
        better = active & (new_error < GROWTH * error)  # False for NaN too
        x = torch.where(better, x @ t, x)
        m = torch.where(better, new_m, m)
        error = torch.where(better, new_error, error)
        active = better & (error > tolerance)
        if a.device.type == "cpu" and not bool(active.any()):
            break
    return x


def _distance(m: Tensor, eye: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(m - eye, torch.inf, dim=(-2, -1), keepdim=True)
    return distance
