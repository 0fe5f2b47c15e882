"""Eigenvalues: a decomposition that retries in double precision, and the power iteration."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from covector import random
from covector.errors import MismatchError, NonFiniteError
from covector.linalg.checks import check_matrix, check_steps, working_dtype

__all__ = ["power_iteration", "symmetric_eigh", "symmetrize"]


def symmetrize(matrix: Tensor) -> Tensor:
    """``(A + A^T) / 2``."""
    return (matrix + matrix.mT) / 2


def symmetric_eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors, computed again in float64 where LAPACK does not converge.

    Args:
        matrix: ``[..., n, n]``, symmetric, float32 or float64.

    Returns:
        Values ``[..., n]`` and vectors ``[..., n, n]``, the vectors in columns.

    Raises:
        NonFiniteError: not even float64 converges, which happens with NaN or infinite elements.

    >>> symmetric_eigh(torch.diag(torch.tensor([2.0, 1.0])))[0]
    tensor([1., 2.])
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except LinAlgError:
        try:
            values, vectors = torch.linalg.eigh(matrix.double())
        except LinAlgError as error:
            raise NonFiniteError(
                f"no eigenvalues were found for a matrix of shape {tuple(matrix.shape)}, in float64 neither; "
                "look for NaN or infinite elements"
            ) from error
    return values.to(matrix.dtype), vectors.to(matrix.dtype)


def power_iteration(
    matrix: Tensor, steps: int = 30, *, vector: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The largest singular value and its right singular vector, by repeated ``v <- A^T A v``.

    For a symmetric positive matrix these are the largest eigenvalue and its eigenvector. The value approaches from
    below. A start close to the answer, such as the last one of a slowly changing matrix, needs one or two steps.

    Args:
        matrix: ``[..., m, n]``.
        steps: products with ``A^T A`` (default 30).
        vector: where to start, ``[..., n]``; default: a random direction, the same for all matrices.
        seed: of the random start.

    Returns:
        Values ``[...]`` and unit vectors ``[..., n]``; a zero matrix has value 0.

    Raises:
        ArgumentError: not a matrix, or ``steps`` below 1.
        MismatchError: ``vector`` does not fit the matrix.
        UnsupportedError: complex, sparse or integer elements.

    >>> value, vector = power_iteration(torch.diag(torch.tensor([3.0, 1.0])))
    >>> round(value.item(), 4), [round(abs(x), 4) for x in vector.tolist()]
    (3.0, [1.0, 0.0])
    """
    check_matrix(matrix)
    check_steps(steps)
    a = matrix.to(working_dtype(matrix))
    if vector is None:
        vector = random.draw(seed, "power_iteration", a.shape[-1], "normal").to(a)
    elif vector.shape != (*a.shape[:-2], a.shape[-1]) and vector.shape != a.shape[-1:]:
        raise MismatchError(f"vector has shape {tuple(vector.shape)}, matrix {tuple(matrix.shape)}: expected [..., n]")
    tiny = torch.finfo(a.dtype).tiny
    scale = torch.linalg.vector_norm(a, torch.inf, dim=(-2, -1), keepdim=True).clamp_min(tiny)  # squares may overflow
    a = a / scale
    v = vector.to(a).expand(*a.shape[:-2], a.shape[-1]).unsqueeze(-1)
    v = v / torch.linalg.vector_norm(v, dim=-2, keepdim=True).clamp_min(tiny)
    for _ in range(steps):
        image = a.mT @ (a @ v)
        length = torch.linalg.vector_norm(image, dim=-2, keepdim=True)
        v = torch.where(length > tiny, image / length.clamp_min(tiny), v)
    value = torch.linalg.vector_norm(a @ v, dim=(-2, -1)) * scale[..., 0, 0]
    return value.to(matrix.dtype), v.squeeze(-1).to(matrix.dtype)
