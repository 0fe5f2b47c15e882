"""Cursor: batches one after another, over as many passes as are needed, from a position that can be resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.objective import Batch
from covector.training.randomness import capture_random, restore_random

__all__ = ["Cursor", "to_device"]


class Cursor:
    """The position in ``batches``.

    Its state is the state of all generators at the start of the running pass and the number of batches taken since.
    Resuming puts the generators back, starts the pass again and lets that many batches go by, so that any loader whose
    order depends on generators only continues exactly. A loader with ``state_dict`` and ``load_state_dict`` (such as
    torchdata's ``StatefulDataLoader``) is asked instead, and nothing is read twice. A batch sampler with ``drawn`` and
    ``replay``, whose batches change their size (:class:`~covector.optim.DynamicBatchSampler`), repeats the sizes.

    Args:
        batches: any iterable of batches; an iterator gives one pass only.
        endless: whether to start again when a pass is over.

    >>> Cursor([1, 2, 3], endless=True).take(5)
    [1, 2, 3, 1, 2]
    """

    def __init__(self, batches: Iterable[Batch], endless: bool) -> None:
        self.batches = batches
        self.endless = endless and not isinstance(batches, Iterator)
        self.epoch = 0
        self.position = 0
        self._start: dict[str, Any] = {}
        self._iterator: Iterator[Batch] | None = None

    def take(self, count: int) -> list[Batch]:
        """The next ``count`` batches; fewer where the last pass ends, none after it."""
        taken: list[Batch] = []
        while len(taken) < count and (batch := self._next()) is not None:
            taken.append(batch[0])
        return taken

    def _next(self) -> tuple[Batch] | None:
        if self._iterator is None:
            self._open()
        assert self._iterator is not None
        for batch in self._iterator:
            self.position += 1
            return (batch,)
        if self.position == 0 and self.endless:
            raise ArgumentError("batches", self.batches, "at least one batch")
        if not self.endless:
            return None
        self.epoch, self.position, self._iterator = self.epoch + 1, 0, None
        return self._next()

    def _open(self) -> None:
        for part in (self.batches, *_samplers(self.batches), getattr(self.batches, "dataset", None)):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(self.epoch)
        self._start = {"global": capture_random(), "own": [g.get_state() for g in _generators(self.batches)]}
        self._iterator = iter(self.batches)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from."""
        state = {"epoch": self.epoch, "position": self.position, "start": self._start}
        if _is_stateful(self.batches):
            state["loader"] = self.batches.state_dict()  # type: ignore[attr-defined]
        elif (sampler := _replays(self.batches)) is not None:
            state["drawn"] = sampler.drawn()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of :meth:`state_dict`; the global generators are left somewhere else."""
        self.epoch, self.position, self._start = state["epoch"], state["position"], state["start"]
        self._iterator = None
        if "loader" in state:
            self.batches.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        elif self._start:
            generators, states = _generators(self.batches), self._start["own"]
            if len(generators) != len(states):
                raise MismatchError(
                    f"batches has {len(generators)} generators of its own but {len(states)} in the checkpoint; build "
                    "the loader as in the interrupted run"
                )
            restore_random(self._start["global"])
            for generator, own in zip(generators, states, strict=True):
                generator.set_state(own)
            if (sampler := _replays(self.batches)) is not None:
                sampler.replay(state.get("drawn", []))
            self._open()
            self._skip()

    def _skip(self) -> None:
        assert self._iterator is not None
        for skipped in range(self.position):
            if next(self._iterator, _END) is _END:
                wanted = f"at least the {self.position} batches of the interrupted pass, got {skipped}"
                raise ArgumentError("batches", self.batches, wanted)


_END = object()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``; what is not a tensor, mapping, list or tuple is left as it is.

    >>> to_device({"x": torch.zeros(1)}, torch.device("cpu"))
    {'x': tensor([0.])}
    """
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _is_stateful(batches: object) -> bool:
    # accelerate's loaders have the methods in any case and say by this attribute whether they work
    works = getattr(batches, "use_stateful_dataloader", True)
    return works and all(callable(getattr(batches, name, None)) for name in ("state_dict", "load_state_dict"))


def _replays(batches: object) -> Any:
    sampler = getattr(batches, "batch_sampler", None)
    return sampler if all(callable(getattr(sampler, name, None)) for name in ("drawn", "replay")) else None


def _samplers(batches: object) -> list[Any]:
    outer = [getattr(batches, name, None) for name in ("sampler", "batch_sampler")]
    return [part for part in (*outer, getattr(outer[1], "sampler", None)) if part is not None]


def _generators(batches: object) -> list[torch.Generator]:
    found = [getattr(part, "generator", None) for part in (batches, *_samplers(batches))]
    unique = {id(generator): generator for generator in found if isinstance(generator, torch.Generator)}
    return list(unique.values())
