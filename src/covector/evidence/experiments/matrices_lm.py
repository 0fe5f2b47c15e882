"""Optimizers of hidden matrices on the character language model: each at the best learning rate of its own grid.

Embedding, head and biases always step by Adam at 3e-3. Learning rates are tried on the first seed, on a grid of factors
of two that grows until the best lies inside; the best one runs on the second seed, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from covector.compare.tuning import Listed, search
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.tasks import charlm, train
from covector.optim.adam import ADAM
from covector.optim.matrix import MatrixOptimizer, adam_options
from covector.optim.optimizer import Optimizer
from covector.optim.signs import SIGNUM
from covector.optim.slots import Slots
from covector.random import derive

__all__ = ["REST", "SETTING", "TUNING", "Make", "Tuned", "adam", "composed", "draw_rates", "signum", "trial", "tuned"]

Make = Callable[[nn.Module, float], Optimizer]

BETAS = (0.9, 0.99)
REST: dict[str, Any] = {"adam_lr": 3e-3, "adam_betas": BETAS, "adam_eps": 1e-8}
STEPS, WIDTH = 200, 192
SETTING = (
    f"character language model on Python's help texts, hidden width {WIDTH}, {STEPS} steps of 256, 20 of them warm-up, "
    "embedding and head by Adam at 3e-3"
)
TUNING = "each at the best of up to six learning rates, a factor of two apart; two seeds"
MOST = 6  # learning rates that are tried


@dataclass(frozen=True)
class Tuned:
    """What a method reached.

    Args:
        lr: the best learning rate of the grid.
        losses: validation losses with it, one a seed.
        grid: validation loss on the first seed, by learning rate.
    """

    lr: float
    losses: tuple[float, ...]
    grid: Mapping[float, float]

    @property
    def loss(self) -> float:
        """Mean validation loss."""
        return statistics.fmean(self.losses)


def composed(slots: Slots, **options: Any) -> Make:
    """Hidden matrices by a composition, the rest by Adam."""
    rest = adam_options(3e-3, BETAS, 1e-8, 0.0)
    return lambda model, lr: MatrixOptimizer(model, slots, lr, rest, **options)


adam = composed(Slots(ADAM), betas=BETAS, eps=1e-8)
signum = composed(Slots(SIGNUM), momentum=0.9)


def trial(budget: Budget, make: Make, lr: float, seed: int = 0, share: float = 1.0, cosine: bool = True) -> float:
    """Validation loss after one run; ``share`` of the usual steps, with a schedule as long."""
    steps, width = budget.choose(smoke=(12, 12), full=(STEPS, WIDTH))
    task = charlm(derive(budget.seed, "charlm", seed) & 0xFFFF, width=width)
    warmup = budget.choose(smoke=2, full=20)
    return train(task, make(task.model, lr), steps=round(share * steps), warmup=warmup, cosine=cosine)


def tuned(budget: Budget, make: Make, lrs: Sequence[float], cosine: bool = True) -> Tuned:
    """The best learning rate of a grid of factors of two, which grows where the best is at its edge."""
    rates = budget.choose(smoke=lrs[1:2], full=lrs)
    tuner = Listed(rates, budget.choose(smoke=1, full=MOST))
    best, grid = search(tuner, lambda lr: trial(budget, make, lr, cosine=cosine))
    grid = dict(sorted(grid.items()))
    others = range(1, budget.choose(smoke=1, full=2))
    return Tuned(best, (grid[best], *(trial(budget, make, best, seed, cosine=cosine) for seed in others)), grid)


def draw_rates(path: Path, found: Mapping[str, Tuned]) -> Path:
    """Validation loss by learning rate, relative to each one's best."""
    with figure(path, x="learning rate / best", y="validation loss, nats") as axes:
        axes.set_xscale("log", base=2)
        for name, result in found.items():
            ratios = [lr / result.lr for lr in result.grid]
            axes.plot(ratios, list(result.grid.values()), marker="o", markersize=3, label=name)
    return path
