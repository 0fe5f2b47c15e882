"""Sixteen natural, microscope and telescope photographs, for inverse problems and image models."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from covector.data.arrays import Arrays
from covector.data.splits import SPLITS, stratified
from covector.errors import ArgumentError

__all__ = ["NAMES", "convert", "load"]

NAMES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "ihc", "moon", "motorcycle_left", "motorcycle_right", "retina", "rocket",
)  # fmt: skip


def convert(raw: Path, out: Path, name: str) -> None:
    """Keep the image files as they are."""
    for photo in NAMES:
        (path,) = raw.rglob(f"{photo}.*")
        shutil.copy(path, out / path.name)


def load(folder: Path, name: str, size: int = 256) -> Arrays:
    """The photos, scaled so that the shorter side is ``size`` pixels and cropped to the central square.

    Args:
        folder: the converted folder.
        name: the entry's name.
        size: pixels of a side, at least 8.

    Returns:
        ``x`` float32 ``[16, 3, size, size]`` in [0, 1]; ``y`` is the photo's number, ``classes`` the names.
        Splits are 12/2/2; the two views of the stereo pair are in one split.
    """
    if size < 8:
        raise ArgumentError("size", size, "at least 8 pixels")
    x = torch.stack([_square(next(folder.glob(f"{photo}.*")), size) for photo in NAMES])
    scenes = [photo.removesuffix("_left").removesuffix("_right") for photo in NAMES]
    drawn = stratified(NAMES, [0] * len(NAMES), groups=scenes)
    splits = {split: torch.tensor([k for k, s in enumerate(drawn) if s == split]) for split in SPLITS}
    return Arrays(name, x, torch.arange(len(NAMES)), splits, classes=NAMES)


def _square(path: Path, size: int) -> Tensor:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1).contiguous().div_(255)
