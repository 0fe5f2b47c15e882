"""Two optimizers on the same gradients: how far apart their parameters are after many steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def start(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """A vector, a matrix and a scalar."""
    generator = torch.Generator().manual_seed(3)
    shapes: list[tuple[int, ...]] = [(5,), (3, 4), ()]
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def gradient(p: Tensor, t: int) -> Tensor:
    """Of a curved function whose slope changes with time, so that no average settles."""
    phase = torch.arange(p.numel(), dtype=p.dtype).reshape(p.shape)
    return (p.detach() + 0.3 * p.detach().sin()) * (1.0 + 0.5 * math.sin(0.7 * t)) + 0.1 * (phase + 0.37 * t).cos()


def run(
    make: Callable[[list[nn.Parameter]], Any], steps: int = 200, dtype: torch.dtype = torch.float64, **options: Any
) -> list[Tensor]:
    """The parameters after some steps; options go to ``step``."""
    params = start(dtype)
    optimizer = make(params)
    for t in range(steps):
        for p in params:
            p.grad = gradient(p, t)
        optimizer.step(**options)
    return [p.detach() for p in params]


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of two lists of tensors, relative to their size; they must have left the start."""
    for reached, began in zip(theirs, start(theirs[0].dtype), strict=True):
        assert float((reached - began.detach()).abs().max()) > 1e-4
    return max(float(((a - b).abs() / (1.0 + b.abs())).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def paths() -> SimpleNamespace:
    return SimpleNamespace(start=start, gradient=gradient, run=run, distance=distance)
