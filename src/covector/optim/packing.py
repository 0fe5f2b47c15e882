"""Small states beside each other in memory: a step over thousands of little tensors then reads them in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.optim.sharded import sharded

__all__ = ["pack"]

# above this many elements the run over a tensor is long enough to hide where the next one lies
_SMALL = 1 << 15


def pack(states: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Replace the small CPU tensors of each name by views of one buffer; values, shapes and dtypes stay.

    Args:
        states: a dictionary for each parameter, changed in place.
        names: keys of the tensors; where a dictionary lacks one it is left alone.

    >>> states = [{"exp_avg": torch.ones(2)}, {"exp_avg": torch.zeros(3)}]
    >>> pack(states, ["exp_avg"])
    >>> states[1]["exp_avg"].data_ptr() - states[0]["exp_avg"].data_ptr()
    8
    """
    for name in names:
        for dtype in {state[name].dtype for state in states if _small(state, name)}:
            chosen = [state for state in states if _small(state, name) and state[name].dtype == dtype]
            tensors = [state[name] for state in chosen]
            pieces = torch.cat([t.flatten() for t in tensors]).split([t.numel() for t in tensors])
            for state, tensor, piece in zip(chosen, tensors, pieces, strict=True):
                state[name] = piece.view(tensor.shape)


def _small(state: Mapping[str, Any], name: str) -> bool:
    tensor = state.get(name)
    if not isinstance(tensor, Tensor) or sharded(tensor):
        return False
    return tensor.is_cpu and tensor.is_contiguous() and tensor.ndim > 0 and tensor.numel() <= _SMALL
