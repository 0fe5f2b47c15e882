"""Endless batches in an order that is a pure function of a seed, so that a run resumes at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from covector.errors import ArgumentError, MismatchError
from covector.language.encoding import Batch, Encoded
from covector.random import Stream, derive, uniform

__all__ = ["Batches"]


class Batches(Iterator[Batch]):
    """An endless iterator of batches; each epoch is shuffled anew and its incomplete last batch left out.

    The order of epoch ``e`` depends on ``(seed, e)`` alone, so ``state_dict`` is a few integers and
    resuming reads no example twice.

    Args:
        items: encoded examples, at least one.
        collate: makes a batch of a list of items.
        batch_size: examples a batch; all of them where there are fewer.
        seed: 64-bit seed of the order.
        bucket: 1 shuffles freely. A larger number sorts windows of ``bucket * batch_size`` shuffled examples
            by length before cutting them into batches, in shuffled order: less padding, so faster steps, but
            batches of similar length.

    >>> from covector.language import CausalTask, tiny_model
    >>> _, tokenizer = tiny_model("a b c d e f")
    >>> task = CausalTask(tokenizer, max_length=2, pack=False)
    >>> batches = task.batches([{"text": "a b"}, {"text": "c d"}, {"text": "e f"}], batch_size=1, seed=0)
    >>> state = batches.state_dict()
    >>> first = next(batches)["input_ids"]
    >>> batches.load_state_dict(state)
    >>> torch.equal(next(batches)["input_ids"], first)
    True
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        collate: Callable[[list[Encoded]], Batch],
        batch_size: int,
        seed: int,
        bucket: int = 1,
    ) -> None:
        if not items:
            raise ArgumentError("examples", list(items), "at least one example (a client without takes no step)")
        if batch_size < 1:
            raise ArgumentError("batch_size", batch_size, "a whole number of at least 1")
        if bucket < 1:
            raise ArgumentError("bucket", bucket, "a whole number of at least 1")
        lengths = [len(item.ids) for item in items]
        self.step = 0
        self.batch_size = min(batch_size, len(items))
        self.steps_per_epoch = len(items) // self.batch_size
        self._sampler = _EndlessSampler(lengths, self.batch_size, seed, bucket)
        self._loader = DataLoader(
            _Items(items),
            batch_sampler=self._sampler,
            collate_fn=collate,
        )
        self._iterator: Iterator[Batch] | None = None

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._sampler.start = self.step
            self._iterator = iter(self._loader)
        batch = next(self._iterator)
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the iterator stands, and what it runs over."""
        return {"step": self.step, **self._sampler.identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            MismatchError: the state belongs to another seed, number of examples, batch size or bucket.
        """
        for name, value in self._sampler.identity.items():
            if state.get(name) != value:
                raise MismatchError(f"the batches have {name}={value}, the state {name}={state.get(name)}")
        self.step = state["step"]
        self._iterator = None


class _Items(torch.utils.data.Dataset[Encoded]):
    def __init__(self, items: Sequence[Encoded]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Encoded:
        return self.items[index]


class _EndlessSampler(Sampler[list[int]]):
    """Lists of indices from step ``start`` on, without end."""

    def __init__(self, lengths: list[int], batch_size: int, seed: int, bucket: int) -> None:
        self.lengths = lengths
        self.start = 0
        self.identity = {"seed": seed, "examples": len(lengths), "batch_size": batch_size, "bucket": bucket}

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = len(self.lengths) // self.identity["batch_size"]
        epoch, skip = divmod(self.start, per_epoch)
        while True:
            yield from self._epoch(epoch)[skip:]
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int) -> list[list[int]]:
        seed, size, bucket = (self.identity[name] for name in ("seed", "batch_size", "bucket"))
        order = _shuffled(len(self.lengths), seed, epoch)
        order = order[: len(order) - len(order) % size]
        if bucket == 1:
            return _cut(order, size)
        windows = _cut(order, size * bucket)
        batches = [batch for window in windows for batch in _cut(sorted(window, key=self.lengths.__getitem__), size)]
        return [batches[number] for number in _shuffled(len(batches), derive(seed, "bucket"), epoch)]


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    keys = uniform(seed, count, Stream.BATCHES, step=epoch)
    order: list[int] = torch.argsort(keys, stable=True).tolist()
    return order


def _cut(order: list[Any], size: int) -> list[list[Any]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
