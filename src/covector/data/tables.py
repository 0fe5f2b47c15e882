"""Tables for classification and regression, from R packages and scikit-learn's own data files.

Rows are as published, in their order. Splits are 80/10/10, stratified by class (or by tenths of a regression
target). Categorical columns are kept as level numbers and expanded when loaded.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from covector.data.arrays import Arrays, read_arrays, write_arrays
from covector.data.rfiles import read_lazy, read_rda
from covector.data.splits import stratified
from covector.errors import ArgumentError

__all__ = ["convert", "load"]

Encoding = Literal["onehot", "codes"]


@dataclass(frozen=True)
class _Table:
    """Where a table lies in its package, and its target column."""

    file: str
    variable: str
    target: str


_TABLES = {
    "letter": _Table("LetterRecognition.rda", "LetterRecognition", "lettr"),
    "shuttle": _Table("Shuttle.rda", "Shuttle", "Class"),
    "satellite": _Table("Satellite.rda", "Satellite", "classes"),
    "spambase": _Table("spam.rda", "spam", "type"),
    "ames": _Table("Rdata.rdx", "ames", "Sale_Price"),
    "concrete": _Table("Rdata.rdx", "concrete", "compressive_strength"),
    "diamonds": _Table("Rdata.rdx", "diamonds", "price"),
}
_TENTHS = 10
_CELLS = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points",
    "symmetry", "fractal dimension",
)  # fmt: skip


def convert(raw: Path, out: Path, name: str) -> None:
    """Store the columns as float32 (level numbers for categorical ones) with their names and levels."""
    columns = _breast_cancer(raw) if name == "breast-cancer" else _from_r(raw, _TABLES[name])
    *inputs, (target, y, levels) = columns
    x = np.stack([values for _, values, _ in inputs], axis=1)
    if levels:
        targets, strata = torch.from_numpy(y.astype(np.int64)), y.astype(int).tolist()
    else:
        ranks = y.argsort(kind="stable").argsort(kind="stable")
        targets, strata = torch.from_numpy(y.astype(np.float32)), (ranks * _TENTHS // len(y)).tolist()
    write_arrays(
        out,
        torch.from_numpy(x.astype(np.float32)),
        targets,
        stratified([f"{name}/{row}" for row in range(len(y))], strata),
        columns=[{"name": column, "levels": known} for column, _, known in inputs],
        target=target,
        classes=levels,
    )


def load(folder: Path, name: str, encode: Encoding = "onehot", standardize: bool = False) -> Arrays:
    """The table.

    Args:
        folder: the converted folder.
        name: the table's name.
        encode: categorical columns as one column of 0 and 1 a level, or as level numbers.
        standardize: shift and scale the numeric columns to mean 0 and variance 1 on the training split.

    Returns:
        ``x`` float32 ``[n, columns]``; ``y`` int64 classes, or float32 values in the target's own unit.
    """
    if encode not in ("onehot", "codes"):
        raise ArgumentError("encode", encode, "'onehot' or 'codes'")
    tensors, splits, names = read_arrays(folder)
    x = tensors["x"]
    if standardize:
        x = _standardized(x, splits["train"], [not column["levels"] for column in names["columns"]])
    features = tuple(column["name"] for column in names["columns"])
    if encode == "onehot":
        x, features = _expanded(x, names["columns"])
    return Arrays(name, x, tensors["y"], splits, features=features, classes=tuple(names["classes"]))


def _standardized(x: Tensor, train: Tensor, numeric: list[bool]) -> Tensor:
    mean = x[train].mean(dim=0)
    scale = x[train].std(dim=0, correction=0)
    scale[scale == 0] = 1.0  # a constant column stays at 0
    return torch.where(torch.tensor(numeric), (x - mean) / scale, x)


def _expanded(x: Tensor, columns: list[dict[str, Any]]) -> tuple[Tensor, tuple[str, ...]]:
    pieces: list[Tensor] = []
    features: list[str] = []
    for number, column in enumerate(columns):
        levels = column["levels"]
        if not levels:
            pieces.append(x[:, number : number + 1])
            features.append(column["name"])
            continue
        pieces.append(torch.nn.functional.one_hot(x[:, number].long(), len(levels)).to(x.dtype))
        features.extend(f"{column['name']}={level}" for level in levels)
    return torch.cat(pieces, dim=1), tuple(features)


def _from_r(raw: Path, table: _Table) -> list[tuple[str, np.ndarray, list[str]]]:
    """Name, values and levels of each column, the target last."""
    (path,) = raw.rglob(table.file)
    frame = (read_lazy if path.suffix == ".rdx" else read_rda)(path, table.variable)
    order = [column for column in frame.columns if column != table.target] + [table.target]
    return [_column(str(name), frame[name]) for name in order]


def _column(name: str, series: Any) -> tuple[str, np.ndarray, list[str]]:
    if series.dtype.name == "category":
        return name, series.cat.codes.to_numpy(), [str(level) for level in series.cat.categories]
    return name, series.to_numpy(dtype=np.float64), []


def _breast_cancer(raw: Path) -> list[tuple[str, np.ndarray, list[str]]]:
    """The file's first line has the counts and the class names, no column names; the class is last."""
    (path,) = raw.rglob("breast_cancer.csv")
    with path.open(encoding="ascii", newline="") as handle:
        (_, _, *classes), *rows = csv.reader(handle)
    values = np.array(rows, dtype=np.float64)
    names = [pattern.format(cell) for pattern in ("mean {}", "{} error", "worst {}") for cell in _CELLS]
    inputs = [(name, values[:, k], list[str]()) for k, name in enumerate(names)]
    return [*inputs, ("class", values[:, -1], classes)]
