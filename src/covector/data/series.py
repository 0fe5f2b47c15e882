"""Labeled time series of equal length, with the published train and test sets.

Dau et al., "The UCR time series archive", arXiv:1810.07758; Bagnall et al., arXiv:1811.00075.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from covector.data.arrays import Arrays, read_arrays, write_arrays
from covector.data.splits import stratified

__all__ = ["convert", "load", "read_series"]


def convert(raw: Path, out: Path, name: str) -> None:
    """Store the series. Test is the published test set; a fifth of the published train set is validation."""
    (train,), (test,) = raw.rglob("*_TRAIN.ts"), raw.rglob("*_TEST.ts")
    x, labels = read_series(train)
    test_x, test_labels = read_series(test)
    classes = sorted(set(labels))
    y = torch.tensor([classes.index(label) for label in labels + test_labels])
    ids = [f"train/{row}" for row in range(len(labels))]
    splits = stratified(ids, labels, validation=0.2, test=0.0) + ["test"] * len(test_labels)
    write_arrays(out, torch.cat([x, test_x]), y, splits, classes=classes)


def load(folder: Path, name: str) -> Arrays:
    """Series ``x`` float32 ``[n, channels, length]``, classes ``y`` int64 ``[n]``."""
    tensors, splits, names = read_arrays(folder)
    return Arrays(name, tensors["x"], tensors["y"], splits, classes=tuple(names["classes"]))


def read_series(path: Path) -> tuple[Tensor, list[str]]:
    """Series and labels of a ``.ts`` file: after ``@data`` a case a line, ``channel:channel:label``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().lower() == "@data")
    cases = [line.strip().split(":") for line in lines[start + 1 :] if line.strip()]
    values = [[[float(v) for v in channel.split(",")] for channel in case[:-1]] for case in cases]
    return torch.tensor(values, dtype=torch.float32), [case[-1] for case in cases]
