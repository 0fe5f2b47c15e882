"""Optimizers on the digits, each at its best learning rate of the same grid."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covector.compare.tuning import Listed, search
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.optim import Adam

__all__ = ["Outcome", "beside_adam", "compare", "train", "tune"]

# parameters and a learning rate, to an optimizer that takes step(loss=...)
Make = Callable[[Any, float], Any]


@dataclass(frozen=True)
class Outcome:
    """The best of a grid: learning rate, training loss and held-out accuracy, one of each a seed."""

    lr: float
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean training loss."""
        return statistics.fmean(self.losses)

    @property
    def accuracy(self) -> float:
        """Mean held-out accuracy."""
        return statistics.fmean(self.accuracies)


def train(digits: Digits, make: Make, lr: float, seed: int, steps: int, batch: int = 32) -> tuple[float, float]:
    """Training loss over all images and held-out accuracy of a network 64 - 64 - 10 after some steps."""
    objective = classifier(seed)
    params: list[Any] = list(objective.params.values())
    optimizer = make(params, lr)
    for step in range(steps):
        loss = objective(digits.batch(seed * 100_003 + step, batch))
        if not bool(loss.isfinite()):
            return 1e9, 0.0
        grads: tuple[Tensor, ...] = torch.autograd.grad(loss, params)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step(loss=loss.detach())
    with torch.no_grad():
        final = float(objective(digits.train))
    return (final if final < 1e9 else 1e9), digits.accuracy(objective)


def tune(digits: Digits, make: Make, grid: Sequence[float], seeds: Sequence[int], steps: int) -> Outcome:
    """The learning rate of the grid with the least mean training loss, chosen on the same seeds for all methods."""

    def trial(lr: float) -> Outcome:
        losses, accuracies = zip(*(train(digits, make, lr, seed, steps) for seed in seeds), strict=True)
        return Outcome(lr, losses, accuracies)

    best, outcomes = search(Listed(grid), trial, lambda outcome: outcome.loss)
    return outcomes[best]


def compare(
    digits: Digits, makes: Mapping[str, tuple[Make, Sequence[float]]], seeds: Sequence[int], steps: int
) -> dict[str, Outcome]:
    """:func:`tune` for several methods with a grid each."""
    return {name: tune(digits, make, grid, seeds, steps) for name, (make, grid) in makes.items()}


def beside_adam(budget: Budget, name: str, make: Make) -> tuple[Outcome, Outcome, str]:
    """A method and Adam, each at its best of the same learning rates, and the setting in words."""
    seeds, steps = budget.choose(smoke=([0], 40), full=([0, 1, 2], 300))
    grid = budget.choose(smoke=[1e-2], full=[1e-3, 3e-3, 1e-2, 3e-2])
    best = compare(Digits.load(), {"Adam": (lambda p, lr: Adam(p, lr=lr), grid), name: (make, grid)}, seeds, steps)
    ours, adam = best[name], best["Adam"]
    setting = (
        f"digits, 64-64-10, {steps} steps, constant rates, {len(seeds)} seed(s), best of {len(grid)} learning rates by "
        f"training loss: {name} {ours.lr:g}, Adam {adam.lr:g}"
    )
    return ours, adam, setting
