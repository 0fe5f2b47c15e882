"""DynamicBatchSampler: batches whose size may change while a DataLoader draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import torch
from torch import Tensor
from torch.utils.data import Sampler

from covector.errors import ArgumentError
from covector.random import Stream, derive, uniform

__all__ = ["DynamicBatchSampler"]


class DynamicBatchSampler(Sampler[list[int]]):
    """Indices of batches, of whatever ``batch_size`` is when a batch is drawn.

    For ``DataLoader(dataset, batch_sampler=sampler)``; the loader is made once. Without worker processes a new size
    holds from the next batch on. Workers fetch ahead: it then holds ``num_workers * prefetch_factor`` batches later (by
    default 2 a worker), always the same number, whatever the timing. The order of a pass is a function of seed and
    epoch; :func:`covector.train` resumes it exactly, sizes included.

    Args:
        data: the data set, or its number of examples.
        batch_size: of the first batches.
        seed: of the order.
        shuffle: whether to shuffle; a new order each pass.
        drop_last: leave out a last batch that is smaller.

    Raises:
        ArgumentError: no examples, or a batch size below 1.

    >>> sampler = DynamicBatchSampler(7, batch_size=1, shuffle=False)
    >>> for batch in sampler:
    ...     print(batch)
    ...     sampler.batch_size *= 2
    [0]
    [1, 2]
    [3, 4, 5, 6]
    """

    def __init__(
        self, data: Sized | int, batch_size: int, *, seed: int = 0, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        self.examples = data if isinstance(data, int) else len(data)
        if self.examples < 1:
            raise ArgumentError("data", self.examples, "at least one example")
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.epoch = 0
        self.batch_size = batch_size
        self._drawn: list[tuple[int, int]] = []
        self._replay: list[int] = []

    @property
    def batch_size(self) -> int:
        """Size of the next batch that is drawn; may be set at any time."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError("batch_size", value, "a whole number of at least 1")
        self._batch_size = value

    def set_epoch(self, epoch: int) -> None:
        """Which pass comes next; it counts by itself otherwise."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        # nothing happens before the first batch is drawn: loaders with workers make an iterator they do not use
        self._drawn = []
        replay, self._replay = iter(self._replay), []
        order = self._order()
        start = 0
        while start < len(order):
            size = next(replay, self.batch_size)
            if self.drop_last and start + size > len(order):
                break
            self._note(size)
            yield order[start : start + size].tolist()
            start += size
        self.epoch += 1

    def __len__(self) -> int:
        """Batches of a whole pass at the present size."""
        whole = self.examples / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def drawn(self) -> list[tuple[int, int]]:
        """The sizes drawn in the running pass, ahead of the consumer too, as runs ``(size, how many)``.

        >>> sampler = DynamicBatchSampler(7, batch_size=2)
        >>> _ = list(sampler); sampler.drawn()
        [(2, 4)]
        """
        return list(self._drawn)

    def replay(self, drawn: list[tuple[int, int]]) -> None:
        """Let the next pass begin with these sizes, in place of ``batch_size``.

        >>> sampler = DynamicBatchSampler(7, batch_size=5, shuffle=False)
        >>> sampler.replay([(1, 2)]); list(sampler)
        [[0], [1], [2, 3, 4, 5, 6]]
        """
        self._replay = [size for size, count in drawn for _ in range(count)]

    def _note(self, size: int) -> None:
        if self._drawn and self._drawn[-1][0] == size:
            self._drawn[-1] = (size, self._drawn[-1][1] + 1)
        else:
            self._drawn.append((size, 1))

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.examples)
        keys = uniform(derive(self.seed, "order", self.epoch), self.examples, stream=Stream.BATCHES)
        return keys.argsort(stable=True)
