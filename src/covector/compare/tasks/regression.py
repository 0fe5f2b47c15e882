"""Linear regression of ten numbers of different scale: a run takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from covector.compare.tasks.base import Task
from covector.objective import Objective

__all__ = ["task"]

_BATCH = 16


def task(seed: int = 0) -> Task:
    """The regression with an initial point and an order of batches that are functions of the seed.

    >>> task(0).validation() > 1
    True
    """
    fixed = torch.Generator().manual_seed(1234)
    scale = torch.logspace(-1, 0, 10)
    weight = torch.randn(10, 1, generator=fixed)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 10, generator=generator) * scale
        return x, x @ weight + 1.0 + 0.1 * torch.randn(count, 1, generator=generator)

    held_out = draw(256, fixed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Linear(10, 1)

    def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        return (draw(_BATCH, generator) for _ in range(steps))

    loss = Objective(model, nn.functional.mse_loss)

    @torch.no_grad()
    def validation() -> float:
        return float(loss(held_out))

    return Task(model, loss, batches, validation)
