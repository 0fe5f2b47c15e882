"""Matrices that act on one axis of tensors: what Kronecker preconditioners are made of.

Tensors are ``[batch, d_1, ..., d_k]``; the factor of axis i is ``[batch, d_i, d_i]``, or ``[batch, d_i]`` if diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["act", "gram", "solve"]


def act(factor: Tensor, x: Tensor, axis: int, transpose: bool = False) -> Tensor:
    """The factor times every vector of x along an axis (from 0, without the batch).

    >>> act(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), torch.tensor([[[1.0], [5.0]]]), 0)
    tensor([[[10.],
             [ 1.]]])
    """
    if factor.ndim == 2:
        return x * _beside(factor, x, axis)
    matrix = factor.mT if transpose else factor
    if axis == x.ndim - 2:
        rows = x.reshape(len(x), -1, x.shape[-1])
        return (rows @ matrix.mT).view(x.shape)
    return _fold(matrix @ unfold(x, axis), x, axis)


def solve(factor: Tensor, x: Tensor, axis: int, transpose: bool = False, triangular: bool = False) -> Tensor:
    """The inverse of the factor (of its transpose) times every vector of x along an axis.

    >>> solve(torch.tensor([[4.0, 2.0]]), torch.ones(1, 2, 1), 0).flatten()
    tensor([0.2500, 0.5000])
    """
    if factor.ndim == 2:
        return x / _beside(factor, x, axis)
    matrix, columns = factor.mT if transpose else factor, unfold(x, axis)
    if triangular:
        return _fold(torch.linalg.solve_triangular(matrix, columns, upper=not transpose), x, axis)
    return _fold(torch.linalg.solve(matrix, columns), x, axis)


def gram(x: Tensor, axis: int, diagonal: bool) -> Tensor:
    """``X_i X_i^T``, all other axes summed over, or its diagonal.

    >>> gram(torch.tensor([[[1.0, 2.0], [0.0, 3.0]]]), 0, diagonal=False)
    tensor([[[5., 6.],
             [6., 9.]]])
    """
    if diagonal:
        others = [dim for dim in range(1, x.ndim) if dim != axis + 1]
        squares = x.square()
        return squares.sum(others) if others else squares
    columns = unfold(x, axis)
    return columns @ columns.mT


def unfold(x: Tensor, axis: int) -> Tensor:
    """``[batch, d_i, all other axes]``.

    >>> unfold(torch.zeros(1, 2, 3, 4), 1).shape
    torch.Size([1, 3, 8])
    """
    return x.movedim(axis + 1, 1).flatten(2) if x.ndim > 2 else x.unsqueeze(2)


def _fold(columns: Tensor, like: Tensor, axis: int) -> Tensor:
    return columns.reshape(like.movedim(axis + 1, 1).shape).movedim(1, axis + 1)


def _beside(diagonal: Tensor, x: Tensor, axis: int) -> Tensor:
    shape = [1] * x.ndim
    shape[0], shape[axis + 1] = diagonal.shape
    return diagonal.view(shape)
