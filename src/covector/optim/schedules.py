"""Learning-rate schedules: functions that return a ``LambdaLR`` of torch, so that they are saved and resumed as one."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from covector.errors import ArgumentError

__all__ = ["warmup_cosine", "warmup_linear", "warmup_stable_decay"]


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int = 0, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine down to a floor.

    Args:
        optimizer: any optimizer of torch or of this library; its lr is the peak.
        steps: of the whole training; the rate stays at the floor after them.
        warmup: steps of the warm-up, of which the last has the full rate.
        floor: the last rate, as a share of the peak.

    Raises:
        ArgumentError: numbers that do not fit together.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    >>> rates(warmup_cosine(optimizer, steps=4, warmup=2), 5)
    [1.0, 2.0, 2.0, 1.0, 0.0]
    """
    _check(steps, warmup, 0, floor)
    fall = _share(steps, warmup)
    return LambdaLR(optimizer, _warmed(warmup, lambda t: floor + (1 - floor) * (1 + math.cos(math.pi * fall(t))) / 2))


def warmup_linear(optimizer: Optimizer, steps: int, warmup: int = 0, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up, then a straight line down to a floor.

    Args:
        optimizer: its lr is the peak.
        steps: of the whole training.
        warmup: steps of the warm-up.
        floor: the last rate, as a share of the peak.

    Raises:
        ArgumentError: numbers that do not fit together.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    >>> rates(warmup_linear(optimizer, steps=6, warmup=2), 7)
    [1.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0]
    """
    _check(steps, warmup, 0, floor)
    fall = _share(steps, warmup)
    return LambdaLR(optimizer, _warmed(warmup, lambda t: floor + (1 - floor) * (1 - fall(t))))


def warmup_stable_decay(
    optimizer: Optimizer, steps: int, warmup: int = 0, decay: int | None = None, floor: float = 0.0
) -> LambdaLR:
    """Linear warm-up, a plateau, and a straight line down at the end (WSD): the plateau can be prolonged.

    Args:
        optimizer: its lr is the plateau.
        steps: of the whole training.
        warmup: steps of the warm-up.
        decay: steps of the decay at the end, default a fifth of all.
        floor: the last rate, as a share of the plateau.

    Raises:
        ArgumentError: numbers that do not fit together.

    Source: Hu et al., "MiniCPM", 2024, equation 1, with a linear decay.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    >>> rates(warmup_stable_decay(optimizer, steps=6, warmup=2, decay=2), 7)
    [1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 0.0]
    """
    decay = max(1, steps // 5) if decay is None else decay
    _check(steps, warmup, decay, floor)
    fall = _share(steps, steps - decay)
    return LambdaLR(optimizer, _warmed(warmup, lambda t: floor + (1 - floor) * (1 - fall(t))))


def rates(scheduler: LambdaLR, steps: int) -> list[float]:
    """The learning rates of the first group in the steps to come, for a look at a schedule.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    >>> rates(LambdaLR(optimizer, lambda t: 1.0), 2)
    [2.0, 2.0]
    """
    peak, form = scheduler.base_lrs[0], scheduler.lr_lambdas[0]
    return [round(float(peak * form(t)), 12) for t in range(steps)]


def _warmed(warmup: int, form: Callable[[int], float]) -> Callable[[int], float]:
    return lambda t: (t + 1) / warmup if t < warmup else form(t)


def _share(steps: int, start: int) -> Callable[[int], float]:
    """How much of the way from ``start`` to ``steps`` lies behind."""
    return lambda t: min(max(t - start, 0) / max(steps - start, 1), 1.0)


def _check(steps: int, warmup: int, decay: int, floor: float) -> None:
    if steps < 1:
        raise ArgumentError("steps", steps, "a whole number of at least 1")
    if not 0 <= warmup <= steps - decay:
        raise ArgumentError("warmup", warmup, f"a whole number from 0 to {steps - decay}")
    if not 0 <= decay <= steps:
        raise ArgumentError("decay", decay, f"a whole number from 0 to steps={steps}")
    if not 0.0 <= floor <= 1.0:
        raise ArgumentError("floor", floor, "a number from 0 to 1")
