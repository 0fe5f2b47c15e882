"""What a matrix function accepts, checked in one place: real, dense, finite, of the right shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError

__all__ = ["check_choice", "check_finite", "check_matrix", "check_square", "check_steps", "working_dtype"]


def check_matrix(matrix: Tensor, name: str = "matrix") -> None:
    """Refuse what is not a dense real floating tensor ``[..., m, n]``."""
    if not isinstance(matrix, Tensor):
        raise UnsupportedError(f"{name} is a {type(matrix).__name__}; expected a torch.Tensor of shape [..., m, n]")
    if matrix.layout != torch.strided:
        raise UnsupportedError(f"{name} is sparse ({matrix.layout}); convert it with .to_dense()")
    if not matrix.is_floating_point():
        raise UnsupportedError(f"{name} has dtype {matrix.dtype}; expected a real floating dtype")
    if matrix.ndim < 2:
        raise ArgumentError(f"{name}.shape", tuple(matrix.shape), "a matrix or a batch of matrices [..., m, n]")


def check_square(matrix: Tensor, name: str = "matrix") -> None:
    """Refuse what :func:`check_matrix` does, and matrices that are not square."""
    check_matrix(matrix, name)
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ArgumentError(f"{name}.shape", tuple(matrix.shape), "square matrices [..., n, n]")


def check_finite(matrix: Tensor, name: str = "matrix") -> None:
    """Refuse NaN and infinities. On a GPU this waits for the device."""
    if not bool(torch.isfinite(matrix).all()):
        count = int((~torch.isfinite(matrix)).sum())
        raise NonFiniteError(f"{name} of shape {tuple(matrix.shape)} has {count} elements that are NaN or infinite")


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a method that is not among ``choices``."""
    if value not in choices:
        raise ArgumentError(argument, value, "one of " + ", ".join(repr(choice) for choice in choices))


def check_steps(steps: int, argument: str = "steps") -> None:
    """Refuse a number of iterations below one."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError(argument, steps, "a whole number of at least 1")


def working_dtype(matrix: Tensor) -> torch.dtype:
    """Float64 stays, everything else is computed in float32: LAPACK knows no half precision."""
    return torch.float64 if matrix.dtype == torch.float64 else torch.float32
