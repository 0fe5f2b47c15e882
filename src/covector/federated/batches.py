"""Which batch a local step sees: shuffled epochs as a pure function of run key, client and step number."""

from __future__ import annotations

import functools
from typing import Protocol

import torch

from covector.objective import Batch
from covector.random import Stream, derive, uniform

__all__ = ["Batches", "batch_index"]


class Batches(Protocol):
    """A client's data: a sequence of batches (a list will do)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Batch: ...


@functools.lru_cache(maxsize=64)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    keys = uniform(seed, count, stream=Stream.BATCHES, step=epoch & 0xFFFFFFFF)
    return tuple(torch.argsort(keys, stable=True).tolist())


def batch_index(key: int, client: int, step: int, count: int) -> int:
    """Index of the batch of a client's step number ``step`` among ``count``: each once in an epoch, shuffled.

    >>> sorted(batch_index(7, 0, step, 3) for step in range(3, 6))
    [0, 1, 2]
    """
    epoch, place = divmod(step, count)
    return _order(derive(key, "batches", client), epoch, count)[place]
