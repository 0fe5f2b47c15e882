"""A small convolutional network on images: two convolutions, two linear layers."""

from __future__ import annotations

import torch
from torch import nn

from covector import data as catalog
from covector.compare.tasks.base import Task, from_loaders
from covector.errors import ArgumentError

__all__ = ["task"]

_DATA = ("digits", "mnist", "fashion-mnist")


def task(seed: int = 0, data: str = "digits") -> Task:
    """The network, and images of ten classes in an order that the seed decides.

    Args:
        seed: of the initial weights and the order.
        data: ``"digits"`` (8 x 8), ``"mnist"`` or ``"fashion-mnist"`` (28 x 28).

    Raises:
        ArgumentError: other data.
        DataError: the images are not in the cache and cannot be fetched.
    """
    if data not in _DATA:
        raise ArgumentError("task", f"cnn:{data}", "cnn:" + ", cnn:".join(_DATA))
    images = catalog.load(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _network(images.x.shape[-1], len(images.classes))
    train = images.loader("train", 64, shuffle=True, seed=seed)
    return from_loaders(model, nn.functional.cross_entropy, (train, images.loader("validation", 500)))


def _network(size: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip
