"""Tasks for which it is known where the evidence for an output lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covector import data
from covector.optim import AdamW

__all__ = ["Clothes", "auc", "coherence", "planted"]


def planted(seed: int, epochs: int, count: int = 1500, features: int = 64) -> tuple[nn.Module, Tensor, Tensor]:
    """An overfitted ReLU network, and held-out points whose labels the first six features decide.

    Returns:
        The network, inputs ``[200, features]`` and the classes it finds there.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count + 200, features, generator=generator)
    y = (x[:, 0] * x[:, 1] + x[:, 2].abs() - x[:, 3].abs() + torch.sin(2 * x[:, 4]) + x[:, 5] > 0).long()
    torch.manual_seed(seed)
    layers = nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
    model = nn.Sequential(*layers)
    optimizer = AdamW(model, lr=1e-3, weight_decay=0.0)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(64):
            _step(optimizer, nn.functional.cross_entropy(model(x[rows]), y[rows]))
    held_out = x[count:]
    with torch.no_grad():
        return model, held_out, model(held_out).argmax(1)


def auc(maps: Tensor, relevant: int) -> float:
    """The chance that one of the first features has more of a map ``[n, features]`` than one of the others.

    >>> auc(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), relevant=2)
    1.0
    """
    ours, others = maps[:, :relevant, None], maps[:, None, relevant:]
    return float(((ours > others).float() + 0.5 * (ours == others).float()).mean())


def coherence(maps: Tensor) -> float:
    """Correlation of the absolute values of neighboring pixels of maps ``[n, 1, height, width]``, mean over maps.

    >>> coherence(torch.arange(16.0).reshape(1, 1, 4, 4)) > 0.8
    True
    """
    size = maps.abs()
    pairs = (size[..., :-1], size[..., 1:]), (size[..., :-1, :], size[..., 1:, :])
    return float(torch.stack([_correlation(a.flatten(1), b.flatten(1)) for a, b in pairs]).mean())


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-30)


class Clothes:
    """A network that says which classes of clothing a square of four pictures shows.

    Args:
        seed: of the squares and the weights.
        steps: of training, 64 squares each.
        count: squares to explain.
    """

    def __init__(self, seed: int, steps: int, count: int) -> None:
        found = data.load("fashion-mnist")
        self.names, self.count = found.classes, count
        (x_train, y_train), (x_test, y_test) = (found.dataset(split).tensors for split in ("train", "test"))
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, len(self.names)),
        )  # fmt: skip
        optimizer = AdamW(self.model, lr=2e-3)
        for _ in range(steps):
            x, y = self._squares(x_train, y_train, 64)
            there = torch.zeros(len(y), len(self.names)).scatter_(1, y, 1.0)
            _step(optimizer, nn.functional.binary_cross_entropy_with_logits(self.model(x), there))
        self.x, self.y = self._squares(x_test, y_test, count)
        there = torch.zeros(count, len(self.names)).scatter_(1, self.y, 1.0)
        with torch.no_grad():
            self.accuracy = float(((self.model(self.x) > 0) == (there > 0)).float().mean())

    def _squares(self, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Squares ``[count, 1, 56, 56]``, and their four classes, all different, ``[count, 4]``."""
        order = torch.randperm(len(x), generator=self.generator)[: 12 * count].reshape(-1, 4)
        apart = (y[order].sort(1).values.diff(dim=1) > 0).all(1)
        order = order[apart][:count]
        assert len(order) == count  # half of all fours are of different classes
        pictures = x[order, 0].reshape(count, 2, 2, 28, 28).permute(0, 1, 3, 2, 4).reshape(count, 1, 56, 56)
        return pictures.contiguous(), y[order]

    def grids(self) -> tuple[Tensor, Tensor, Tensor]:
        """Squares, the quadrant that is explained, and its class."""
        where = torch.arange(self.count) % 4
        return self.x, where, self.y[torch.arange(self.count), where]

    def share(self, maps: Tensor, where: Tensor) -> float:
        """The mean share of the absolute map that lies in a quadrant."""
        mass = maps.abs().sum(1).reshape(-1, 2, 28, 2, 28).sum((2, 4)).flatten(1)
        return float((mass[torch.arange(len(mass)), where] / mass.sum(1)).mean())


def _step(optimizer: AdamW, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
