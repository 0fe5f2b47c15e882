"""Tensors as matrices ``output x input``, and equal ones stacked, so that each matrix function is called once.

A linear layer's weight is a matrix as it stands. Of a convolution the kernel and the inputs are one dimension; a
parameter that stacks the gates of a recurrent cell, or the projections of attention, is several matrices; one that
is stored input by output is turned around; a vector is a matrix of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Stack", "as_matrices", "from_matrices", "map_matrices", "stacks"]


def as_matrices(tensor: Tensor, blocks: int = 1, transposed: bool = False) -> Tensor:
    """A tensor as ``[blocks, m, n]``, m the outputs of one block; a view where strides allow.

    Args:
        tensor: of any shape.
        blocks: matrices stacked along the outputs.
        transposed: the first dimension counts the inputs, the second the outputs.

    Raises:
        ArgumentError: the outputs cannot be cut into that many blocks.

    >>> as_matrices(torch.zeros(8, 3, 2, 2)).shape, as_matrices(torch.zeros(12, 5), blocks=4).shape
    (torch.Size([1, 8, 12]), torch.Size([4, 3, 5]))
    """
    if tensor.ndim < 2:
        return tensor.reshape(1, 1, -1)
    turned = (tensor.transpose(0, 1) if transposed else tensor).flatten(1)
    if turned.shape[0] % blocks:
        raise ArgumentError("blocks", blocks, f"a divisor of the {turned.shape[0]} outputs")
    return turned.reshape(blocks, -1, turned.shape[1])


def from_matrices(matrices: Tensor, like: Tensor, transposed: bool = False) -> Tensor:
    """The inverse of :func:`as_matrices` for a tensor shaped as ``like``.

    >>> x = torch.arange(24.0).reshape(2, 3, 4)
    >>> torch.equal(from_matrices(as_matrices(x, transposed=True), x, transposed=True), x)
    True
    """
    if like.ndim < 2 or not transposed:
        return matrices.reshape(like.shape)
    outputs, inputs = like.shape[1], like.shape[0]
    return matrices.reshape(outputs, inputs, *like.shape[2:]).transpose(0, 1)


@dataclass
class Stack:
    """Equal matrices of several tensors as one batch, with what is kept for each tensor.

    Args:
        owners: index of the tensor that each part comes from.
        matrices: ``[batch, m, n]``.
        sizes: matrices a part.
        suffixes: appended to the names of a part's states, where a tensor has several parts.
    """

    owners: list[int]
    matrices: Tensor
    sizes: list[int]
    suffixes: list[str]

    def split(self, values: Tensor) -> Sequence[Tensor]:
        """Values ``[batch, ...]`` by part."""
        return torch.split(values, self.sizes)

    def known(self, states: Sequence[dict[str, Any]], name: str) -> bool:
        """Whether every part has a state of that name."""
        return all(name + suffix in states[i] for i, suffix in zip(self.owners, self.suffixes, strict=True))

    def read(self, states: Sequence[dict[str, Any]], name: str) -> Tensor:
        """The states of all parts as one batch."""
        parts = [states[i][name + suffix] for i, suffix in zip(self.owners, self.suffixes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def write(self, states: Sequence[dict[str, Any]], name: str, values: Tensor) -> None:
        """Keep a part of the batch for each tensor, in memory of its own."""
        for i, suffix, value in zip(self.owners, self.suffixes, self.split(values), strict=True):
            old = states[i].get(name + suffix)
            if old is None:
                states[i][name + suffix] = value.clone(memory_format=torch.contiguous_format)
            else:
                old.copy_(value)


def stacks(tensors: Sequence[Tensor], group: Mapping[str, Any], tile: int | None = None) -> list[Stack]:
    """Tensors as matrices, by shape.

    Args:
        tensors: of one param group.
        group: read for ``blocks`` and ``transposed``, if there.
        tile: cut matrices into pieces of at most that many rows and columns.

    >>> [s.matrices.shape[0] for s in stacks([torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(4, 4)], {})]
    [2, 1]
    """
    parts: dict[tuple[int, int], list[tuple[int, str, Tensor]]] = {}
    for index, tensor in enumerate(tensors):
        whole = as_matrices(tensor, group.get("blocks", 1), group.get("transposed", False))
        for suffix, part in pieces(whole, tile):
            parts.setdefault((part.shape[1], part.shape[2]), []).append((index, suffix, part))
    found = []
    for members in parts.values():
        owners, suffixes, values = zip(*members, strict=True)
        batch = values[0] if len(values) == 1 else torch.cat(values)
        found.append(Stack(list(owners), batch, [len(v) for v in values], list(suffixes)))
    return found


def pieces(matrices: Tensor, tile: int | None) -> list[tuple[str, Tensor]]:
    """Views of at most ``tile`` rows and columns, numbered row by row; the whole where there is no limit."""
    if tile is None:
        return [("", matrices)]
    views = [piece for rows in matrices.split(tile, dim=1) for piece in rows.split(tile, dim=2)]
    return [(f".{number}", view) for number, view in enumerate(views)]


def map_matrices(
    function: Callable[[Stack], Tensor], tensors: Sequence[Tensor], group: Mapping[str, Any], tile: int | None = None
) -> list[Tensor]:
    """New tensors: a function of stacks ``[batch, m, n]`` that gives matrices of the same shape.

    >>> [t.tolist() for t in map_matrices(lambda s: s.matrices.flip(1), [torch.tensor([[1.0], [2.0]])], {})]
    [[[2.0], [1.0]]]
    """
    blocks, transposed = group.get("blocks", 1), group.get("transposed", False)
    wholes = [torch.empty_like(as_matrices(t, blocks, transposed)) for t in tensors]
    places = [dict(pieces(whole, tile)) for whole in wholes]
    for stack in stacks(tensors, group, tile):
        for i, suffix, value in zip(stack.owners, stack.suffixes, stack.split(function(stack)), strict=True):
            places[i][suffix].copy_(value)
    return [from_matrices(whole, t, transposed) for whole, t in zip(wholes, tensors, strict=True)]
