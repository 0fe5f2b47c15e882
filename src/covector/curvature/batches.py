"""The data behind an operator: one batch, several, or a loader that is read again for every product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.objective import Batch, Objective

__all__ = ["Batches"]


class Batches:
    """Batches to average over, each weighted by its number of examples.

    A tensor, a mapping, a tuple, ``None`` and a list of tensors are one batch; a list of anything else is a list of
    batches; everything else that can be iterated again and again, as a ``DataLoader`` can, is read anew each time.

    Args:
        objective: tells how many examples a batch has.
        data: the batches.

    Raises:
        ArgumentError: nothing in it, or an iterator, which can be read only once.

    >>> from torch import nn, zeros
    >>> objective = Objective(nn.Linear(2, 1), nn.functional.mse_loss)
    >>> batches = Batches(objective, [(zeros(3, 2), zeros(3, 1)), (zeros(5, 2), zeros(5, 1))])
    >>> [weight for _, weight in batches], batches.in_memory
    ([3, 5], True)
    """

    def __init__(self, objective: Objective, data: Any) -> None:
        self.objective = objective
        self._data: Iterable[Batch] = [data] if _is_one(data) else data
        self.in_memory = isinstance(self._data, list)
        if isinstance(data, Iterator) or not isinstance(self._data, Iterable):
            raise ArgumentError("batches", type(data).__name__, "a batch, a list of batches or a loader to read again")
        if not list(islice(self._data, 1)):
            raise ArgumentError("batches", data, "at least one batch")

    def __iter__(self) -> Iterator[tuple[Batch, int]]:
        single = self.in_memory and len(self) == 1
        for batch in self._data:
            # the weight of the only batch cancels, so that it may be anything the objective understands
            yield batch, 1 if single else self.objective.size(batch)

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def first(self) -> Batch:
        """The first batch."""
        return next(iter(self._data))


def _is_one(data: Any) -> bool:
    if data is None or isinstance(data, (Tensor, Mapping, tuple)):
        return True
    return isinstance(data, list) and bool(data) and all(isinstance(value, Tensor) for value in data)
