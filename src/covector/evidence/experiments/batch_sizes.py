"""Softmax regression on digits with a budget of samples, in batches of constant or of growing size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from covector.evidence.experiments.digits import Digits, classifier
from covector.optim import Adagrad, BatchController, DynamicBatchSampler

__all__ = ["LEARNING_RATES", "Outcome", "Sizes", "dominators"]

LEARNING_RATES = (0.2, 0.4, 0.8, 1.6, 3.2)
FIRST = 8  # examples in the first batch of a run whose batch grows


@dataclass(frozen=True)
class Outcome:
    """Where runs of one setting ended: means over the seeds, and the curves of the first seed."""

    label: str
    lr: float
    steps: float
    loss: float
    accuracy: float
    spread: float
    sizes: tuple[int, ...]
    norms: tuple[float, ...]


class Sizes:
    """The task: so many samples, drawn as shuffled passes over the training images.

    Args:
        digits: the data.
        samples: the budget of a run.
        seeds: of the networks and the order; results are means over them.
    """

    def __init__(self, digits: Digits, samples: int, seeds: Iterable[int]) -> None:
        self.digits = digits
        self.samples = samples
        self.seeds = list(seeds)

    def best(self, label: str, size: int = FIRST, test: Mapping[str, Any] | None = None, lrs: Any = None) -> Outcome:
        """The runs with the learning rate that ends at the lowest training loss with the first seed.

        Args:
            label: name of the setting.
            size: examples in the first batch.
            test: arguments of the controller; None keeps the size.
            lrs: learning rates to try.
        """
        tried = {lr: self._run(size, test, lr, self.seeds[0]) for lr in lrs or LEARNING_RATES}
        lr = min(tried, key=lambda lr: float(tried[lr][1]))
        runs = [tried[lr], *(self._run(size, test, lr, seed) for seed in self.seeds[1:])]
        steps, losses, accuracies = ([float(run[i]) for run in runs] for i in range(3))
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        means = [statistics.fmean(column) for column in (steps, losses, accuracies)]
        return Outcome(label, lr, means[0], means[1], means[2], spread, *runs[0][3:])

    def _run(self, size: int, test: Mapping[str, Any] | None, lr: float, seed: int) -> tuple[Any, ...]:
        inputs, targets = self.digits.train
        objective = classifier(seed, hidden=0)
        optimizer = Adagrad(objective.params.values(), lr)
        sampler = DynamicBatchSampler(len(targets), size, seed=seed)
        controller = None if test is None else BatchController(sampler, estimator="ghost", **test)
        sizes: list[int] = []
        norms: list[float] = []
        left = self.samples
        while left > 0:
            for chosen in sampler:
                batch = inputs[chosen], targets[chosen]
                optimizer.zero_grad()
                if controller is None:
                    objective(batch).backward()
                else:
                    controller.backward(objective, batch)
                optimizer.step()
                norms.append(_norm(optimizer))
                sizes.append(len(chosen))
                left -= len(chosen)
                if controller is not None:
                    controller.step()
                if left <= 0:
                    break
        with torch.no_grad():
            loss = float(objective(self.digits.train))
        return len(sizes), loss, self.digits.accuracy(objective), tuple(sizes), tuple(norms)


def _norm(optimizer: torch.optim.Optimizer) -> float:
    grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return math.sqrt(sum(float(g.square().sum()) for g in grads))


def dominators(one: Outcome, others: Iterable[Outcome], key: str) -> list[str]:
    """Which of the others need no more steps and end no worse, by ``"loss"`` or by ``"accuracy"``.

    >>> few = Outcome("few", 0.1, 20, 0.5, 0.92, 0.0, (), ())
    >>> many = Outcome("many", 0.1, 200, 0.4, 0.91, 0.0, (), ())
    >>> dominators(many, [few], "loss"), dominators(many, [few], "accuracy")
    ([], ['few'])
    """
    sign = 1.0 if key == "loss" else -1.0
    return [o.label for o in others if o.steps <= one.steps and sign * getattr(o, key) <= sign * getattr(one, key)]
