"""A task: a fresh model, the batches it is trained on, and how it is judged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from covector.errors import ArgumentError
from covector.objective import Objective

__all__ = ["Task", "from_loaders"]


class Task(NamedTuple):
    """A fresh model and what it is trained and judged on.

    Attributes:
        model: the model; the trial trains its parameters.
        loss: the objective: ``loss(batch)`` is the mean loss, a scalar with a graph.
        batches: ``batches(steps)``: that many training batches, the same ones at each call.
        validation: the loss on held-out data, nothing but a number.
    """

    model: nn.Module
    loss: Objective
    batches: Callable[[int], Iterator[Any]]
    validation: Callable[[], float]


def from_loaders(model: nn.Module, loss: Any, loaders: Any) -> Task:
    """A task from a module, a loss and two loaders.

    Args:
        model: any module.
        loss: ``loss(outputs, targets)``; for batches that are mappings ``loss(outputs, batch)``, or None where the
            outputs have a ``.loss``: as :class:`~covector.Objective` takes it.
        loaders: ``(train, validation)``, or a mapping with these names: iterables of batches. The training loader
            begins anew when it ends.

    Raises:
        ArgumentError: the loaders are not two, or one gives no batch.

    >>> batch = torch.ones(2, 3), torch.zeros(2, 1)
    >>> task = from_loaders(nn.Linear(3, 1), nn.functional.mse_loss, ([batch], [batch]))
    >>> len(list(task.batches(5)))
    5
    """
    if isinstance(loaders, Mapping):
        loaders = [loaders.get("train"), loaders.get("validation")]
    if not isinstance(loaders, (tuple, list)) or len(loaders) != 2 or None in [type(part) for part in loaders]:
        raise ArgumentError("loaders", type(loaders).__name__, "a pair (train, validation) of iterables of batches")
    train, held_out = loaders
    objective = Objective(model, loss)

    @torch.no_grad()
    def validation() -> float:
        model.eval()
        try:
            pairs = [(objective.size(batch), float(objective(batch))) for batch in held_out]
        finally:
            model.train()
        if not pairs:
            raise ArgumentError("loaders", "validation", "a loader with at least one batch")
        return sum(size * value for size, value in pairs) / sum(size for size, _ in pairs)

    return Task(model, objective, lambda steps: itertools.islice(_again(train), steps), validation)


def _again(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ArgumentError("loaders", "train", "a loader with at least one batch, not an exhausted iterator")
