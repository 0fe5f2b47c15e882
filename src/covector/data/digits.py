"""Images of digits and clothes: MNIST, Fashion-MNIST and the 8 x 8 digits of scikit-learn.

LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86, 1998; Xiao, Rasul and Vollgraf, arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from covector.data.arrays import Arrays, read_arrays, write_arrays
from covector.data.splits import stratified
from covector.errors import DataError

__all__ = ["convert", "load", "read_idx"]

_CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_IDX_UNSIGNED_BYTE = 0x08


def convert(raw: Path, out: Path, name: str) -> None:
    """Store the images as bytes.

    MNIST and Fashion-MNIST: the published test set is the test split; of the 60,000 training images 5,000 are
    the validation split, stratified by class. Digits: 80/10/10, stratified by class.
    """
    if name == "digits":
        x, y, splits = _small_digits(raw)
    else:
        x, y, splits = _idx_pairs(raw)
    classes = list(_CLOTHES) if name == "fashion-mnist" else [str(digit) for digit in range(10)]
    write_arrays(out, x, y, splits, classes=classes, highest=16 if name == "digits" else 255)


def load(folder: Path, name: str) -> Arrays:
    """Images ``x`` float32 ``[n, 1, height, width]`` in [0, 1], classes ``y`` int64 ``[n]``."""
    tensors, splits, names = read_arrays(folder)
    x = tensors["x"].to(torch.float32).div_(names["highest"])
    return Arrays(name, x, tensors["y"], splits, classes=tuple(names["classes"]))


def read_idx(path: Path) -> Tensor:
    """A tensor from an IDX file of unsigned bytes, gzipped or not.

    The format: two zero bytes, the type code, the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the elements in C order.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if content[:3] != bytes([0, 0, _IDX_UNSIGNED_BYTE]):
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    elements = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(elements.reshape(shape).copy())


def _idx_pairs(raw: Path) -> tuple[Tensor, Tensor, list[str]]:
    found = {path.name.split("-idx")[0]: read_idx(path) for path in raw.rglob("*-ubyte*")}
    train, test = found["train-labels"].long(), found["t10k-labels"].long()
    ids = [f"train/{index}" for index in range(len(train))]
    splits = stratified(ids, train.tolist(), validation=5000 / len(train), test=0.0)
    images = torch.cat([found["train-images"], found["t10k-images"]])
    return images[:, None], torch.cat([train, test]), splits + ["test"] * len(test)


def _small_digits(raw: Path) -> tuple[Tensor, Tensor, list[str]]:
    (path,) = raw.rglob("digits.csv.gz")
    with gzip.open(path, "rt") as handle:
        table = torch.from_numpy(np.loadtxt(handle, delimiter=",", dtype=np.uint8))
    y = table[:, -1].long()
    splits = stratified([f"digits/{index}" for index in range(len(y))], y.tolist())
    return table[:, :-1].reshape(-1, 1, 8, 8), y, splits
