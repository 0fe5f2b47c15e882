"""Tensors with splits and, where the data has them, natural clients: images, tables, series."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from covector.data.splits import SPLITS
from covector.errors import ArgumentError

__all__ = ["Arrays", "read_arrays", "write_arrays"]

_TENSORS, _NAMES = "arrays.safetensors", "names.json"


@dataclass(frozen=True, eq=False)
class Arrays:
    """Inputs and targets as tensors.

    Args:
        name: the catalog's name.
        x: inputs, one example a row: images ``[n, channels, height, width]``, tables ``[n, columns]``.
        y: targets ``[n]``: int64 class numbers, or float32 values for regression.
        splits: int64 indices for ``"train"``, ``"validation"`` and ``"test"``; disjoint.
        features: names of the columns of ``x`` (tables).
        classes: names of the classes (classification).
        client_ids: int64 ``[n]``, the natural client of each example, or None.
        client_names: their names.

    >>> toy = Arrays("toy", torch.arange(4.0)[:, None], torch.tensor([0, 1, 0, 1]),
    ...              {"train": torch.tensor([0, 1, 2]), "test": torch.tensor([3])})
    >>> [len(batch) for batch, _ in toy.loader("train", batch_size=2)]
    [2, 1]
    """

    name: str
    x: Tensor
    y: Tensor
    splits: dict[str, Tensor]
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    client_ids: Tensor | None = None
    client_names: tuple[str, ...] = field(default=(), repr=False)

    def dataset(self, split: str) -> TensorDataset:
        """The ``(x, y)`` pairs of a split."""
        chosen = self._indices(split)
        return TensorDataset(self.x[chosen], self.y[chosen])

    def loader(
        self, split: str, batch_size: int = 64, shuffle: bool = False, seed: int = 0
    ) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of a split; with ``shuffle`` in an order that ``seed`` alone decides."""
        order = torch.Generator().manual_seed(seed)
        return DataLoader(self.dataset(split), batch_size, shuffle=shuffle, generator=order)

    def clients(self, split: str) -> dict[str, TensorDataset]:
        """The pairs of a split by natural client.

        Raises:
            ArgumentError: the data has no natural clients.
        """
        if self.client_ids is None:
            raise ArgumentError("name", self.name, "data with natural clients; this data set has none")
        chosen = self._indices(split)
        owner = self.client_ids[chosen]
        order = torch.argsort(owner, stable=True)
        present, counts = torch.unique_consecutive(owner[order], return_counts=True)
        groups = torch.split(chosen[order], counts.tolist())
        return {
            self.client_names[int(client)]: TensorDataset(self.x[group], self.y[group])
            for client, group in zip(present, groups, strict=True)
        }

    def _indices(self, split: str) -> Tensor:
        if split not in self.splits:
            raise ArgumentError("split", split, f"one of {sorted(self.splits)}")
        return self.splits[split]


def write_arrays(
    folder: Path, x: Tensor, y: Tensor, splits: Sequence[str], clients: Tensor | None = None, **names: Any
) -> None:
    """Write tensors, the split of each example and names: the form of all arrays in the cache."""
    tensors = {"x": x, "y": y, "split": torch.tensor([SPLITS.index(s) for s in splits], dtype=torch.uint8)}
    if clients is not None:
        tensors["client"] = clients
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / _TENSORS)
    (folder / _NAMES).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


def read_arrays(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """The tensors, the indices of each split, and the names that :func:`write_arrays` wrote."""
    tensors = load_file(folder / _TENSORS)
    number = tensors.pop("split")
    splits = {split: torch.nonzero(number == k).flatten() for k, split in enumerate(SPLITS)}
    return tensors, splits, json.loads((folder / _NAMES).read_text(encoding="utf-8"))
