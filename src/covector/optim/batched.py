"""States of equal shape as one batch, read without a copy where they lie beside each other, as writing leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_batch", "write_batch"]

States = Sequence[dict[str, Any]]


def read_batch(states: States, name: str) -> Tensor:
    """The states of that name as ``[batch, ...]``; must not be written into.

    >>> read_batch([{"q": torch.ones(2)}, {"q": torch.zeros(2)}], "q").shape
    torch.Size([2, 2])
    """
    parts: list[Tensor] = [state[name] for state in states]
    base = parts[0]._base
    if base is not None and base.shape == (len(parts), *parts[0].shape) and base.is_contiguous():
        step, start = base.stride(0), base.storage_offset()
        if all(p._base is base and p.storage_offset() == start + i * step for i, p in enumerate(parts)):
            return base
    return torch.stack(parts)


def write_batch(states: States, name: str, values: Tensor) -> None:
    """Keep ``values [batch, ...]`` as the states of that name: views of it.

    >>> states = [{}, {}]
    >>> write_batch(states, "q", torch.eye(2))
    >>> states[1]["q"], read_batch(states, "q").data_ptr() == states[0]["q"].data_ptr()
    (tensor([0., 1.]), True)
    """
    whole = values.detach().contiguous()
    if whole._base is not None:
        whole = whole.clone()
    for state, value in zip(states, whole.unbind(0), strict=True):
        state[name] = value
