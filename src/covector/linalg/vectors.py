"""Vectors of an operator, in the forms callers have them, as rows, and the random rows that probe an operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from covector import random
from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg.operator import LinearOperator
from covector.random import Distribution
from covector.trees import Params, check_same, flatten, unflatten

__all__ = ["Vectors", "as_rows", "check_symmetric", "finite", "multiply", "probe_rows", "work_dtype"]

Vectors = Tensor | Params


def work_dtype(op: LinearOperator) -> torch.dtype:
    """Bases are kept in float64 for a float64 operator, else in float32."""
    return torch.float64 if op.dtype == torch.float64 else torch.float32


def check_symmetric(op: LinearOperator, method: str) -> None:
    """Refuse an operator that is not square, or does not say that it is symmetric."""
    if op.shape[0] != op.shape[1]:
        raise MismatchError(f"{method} needs a square operator, this one has shape {op.shape}")
    if not op.symmetric:
        raise ArgumentError("op.symmetric", op.symmetric, f"a symmetric operator for {method} (symmetric=True says so)")


def multiply(op: LinearOperator, rows: Tensor) -> Tensor:
    """The products with the vectors in ``rows`` ``[k, n]``, as rows in the dtype of ``rows``; they are counted."""
    return (op @ rows.mT).mT.to(rows.dtype)


def probe_rows(
    op: LinearOperator, count: int, seed: int, name: str, distribution: Distribution = "rademacher", start: int = 0
) -> Tensor:
    """Random vectors ``start .. start + count - 1`` of an endless list that belongs to ``seed``: ``[count, n]``."""
    n = op.shape[1]
    flat = random.draw(seed, name, count * n, distribution, start * n, random.Stream.DIRECTIONS, dtype=work_dtype(op))
    return flat.reshape(count, n).to(op.device)


def as_rows(op: LinearOperator, vectors: Vectors, argument: str) -> tuple[Tensor, Callable[[Tensor], Vectors]]:
    """``vectors`` (``[n]``, ``[n, k]`` or Params) as rows ``[k, n]``, and the way back for rows of the same kind."""
    n, dtype = op.shape[0], work_dtype(op)
    if isinstance(vectors, dict):
        if op.like is None:
            raise ArgumentError(argument, "Params", "a flat tensor: this operator knows no parameter names")
        like = op.like
        check_same(vectors, like, (argument, "the operator"))
        return flatten(vectors).to(op.device, dtype)[None], lambda rows: unflatten(rows[0], like)
    if vectors.ndim not in (1, 2) or vectors.shape[0] != n:
        raise MismatchError(
            f"the operator has shape {op.shape}, {argument} {tuple(vectors.shape)}: expected [{n}] or [{n}, k]"
        )
    rows = vectors.detach().to(op.device, dtype)
    if vectors.ndim == 1:
        return rows[None], lambda found: found[0]
    return rows.mT.contiguous(), lambda found: found.mT


def finite(values: Tensor, method: str) -> Tensor:
    """``values``, refused if they are NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(f"{method}: a product of the operator is NaN or infinite; look at where it is evaluated")
    return values
