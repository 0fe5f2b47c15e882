"""Parameters whose elements are divided among processes, as ``torch.distributed.fsdp.fully_shard`` leaves them.

A rule of single elements steps each process's own part. What looks at a whole tensor (a matrix map, a basis, a norm)
is given the whole tensor, gathered for the step; all processes compute the same and keep their part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["any_sharded", "deal", "local", "shard_like", "sharded", "whole"]


def sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``; told by its method, since importing the class takes half a second.

    >>> sharded(torch.zeros(2))
    False
    """
    return hasattr(type(tensor), "full_tensor")


def any_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether one of many tensors is a ``DTensor``.

    >>> any_sharded([torch.zeros(2), torch.ones(1)])
    False
    """
    return any(hasattr(kind, "full_tensor") for kind in set(map(type, tensors)))


def whole(tensor: Tensor) -> Tensor:
    """All elements of a tensor; all processes that hold a part of it must call this."""
    if not sharded(tensor):
        return tensor
    found: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return found


def local(tensor: Tensor) -> Tensor:
    """The elements that this process holds, in the same memory."""
    if not sharded(tensor):
        return tensor
    found: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return found


def shard_like(full: Tensor, like: Any) -> Tensor:
    """A tensor that every process has, divided as another one is; no process sends anything."""
    if not sharded(like):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def deal(full: Sequence[Tensor], owners: Sequence[Tensor]) -> None:
    """Write this process's parts of whole tensors into the sharded ones that they were gathered from."""
    for tensor, owner in zip(full, owners, strict=True):
        if tensor is not owner:
            local(owner).copy_(local(shard_like(tensor, owner)))
