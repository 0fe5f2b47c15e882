"""The parallel part of the overview of gradient descent: delays against three servers, elastic against plain averaging.

Softmax regression on digits; all schemes take the same number of gradients, each with the learning rate that suits it.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from covector.distributed import EASGD, AdaptiveRevision, AsyncSimulator, Downpour, LocalAveraging, Poisson, Scheme
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Finding
from covector.objective import Objective
from covector.optim import SGD, Adagrad

__all__ = ["Stream", "logistic", "parallel_part", "sgd"]

WORKERS = 8
LEARNING_RATES = (0.0125, 0.05, 0.2, 0.8, 3.2)
DIVERGED = 100.0  # the loss that counts for anything worse
Curve = dict[int, float]


@dataclass(frozen=True)
class Stream:
    """Batches of digits: a function of seed, worker and step."""

    digits: Digits
    seed: int
    size: int = 16

    def __call__(self, worker: int, step: int) -> tuple[Tensor, Tensor]:
        return self.digits.batch((self.seed << 40) + (worker << 24) + step, self.size)


def logistic(seed: int) -> Objective:
    """A linear classifier of digits."""
    return classifier(seed, hidden=0)


def sgd(tensors: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """Plain SGD."""
    return SGD(tensors, lr)


def adagrad(tensors: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """Adagrad with an accumulator that starts at 1, as AdaptiveRevision's does."""
    return Adagrad(tensors, lr, initial_accumulator_value=1.0)


SERVERS: dict[str, Callable[[float], Scheme]] = {
    "SGD": lambda lr: Downpour(functools.partial(sgd, lr=lr)),
    "Adagrad": lambda lr: Downpour(functools.partial(adagrad, lr=lr)),
    "delay-tolerant": lambda lr: AdaptiveRevision(lr),
}


def parallel_part(digits: Digits, budget: Budget) -> tuple[list[Finding], list[Path]]:
    """Findings and figures for the evidence of the overview.

    Args:
        digits: the data.
        budget: smoke: one seed and few gradients.
    """
    stale, first = _staleness(digits, budget)
    elastic, second = _averaging(digits, budget)
    return [*stale, *elastic], [first, second]


class _Task:
    """Runs that end after so many gradients; their score is the loss on all training images."""

    def __init__(self, digits: Digits, gradients: int, seeds: Sequence[int]) -> None:
        self.digits, self.gradients, self.seeds = digits, gradients, seeds

    def loss(self, scheme: Scheme, delay: int = 0) -> float:
        """Mean over the seeds; what has diverged counts as ``DIVERGED``."""
        return statistics.fmean(self._one(scheme, delay, seed) for seed in self.seeds)

    def _one(self, scheme: Scheme, delay: int, seed: int) -> float:
        objective = logistic(seed)
        wait = Poisson(float(delay)) if delay else 0
        simulator = AsyncSimulator(objective, WORKERS, scheme, wait, seed)
        simulator.run(Stream(self.digits, seed), self.gradients)
        with torch.no_grad():
            loss = float(objective(self.digits.train, {n: p.detach() for n, p in simulator.params.items()}))
        return min(loss, DIVERGED) if math.isfinite(loss) else DIVERGED

    def best(self, make: Callable[[float], Scheme], lrs: Sequence[float], delay: int = 0) -> tuple[float, float]:
        """Lowest loss over the learning rates, and the rate."""
        return min((self.loss(make(lr), delay), lr) for lr in lrs)


def _staleness(digits: Digits, budget: Budget) -> tuple[list[Finding], Path]:
    full = budget.name == "full"
    delays = budget.choose(smoke=(0, 8), full=(0, 8, 64))
    task = _Task(digits, budget.choose(200, 1000), range(budget.seed, budget.seed + budget.choose(1, 2)))
    lrs = budget.choose(smoke=(0.05,), full=LEARNING_RATES)
    tuned: dict[str, Curve] = {}
    kept: dict[str, Curve] = {}
    for name, make in SERVERS.items():
        found = {delay: task.best(make, lrs, delay) for delay in delays}
        tuned[name] = {delay: loss for delay, (loss, _) in found.items()}
        kept[name] = {delay: task.loss(make(found[0][1]), delay) for delay in delays}
    path = budget.path("training-loss-by-staleness.svg")
    with figure(path, x="mean delay, in gradients", y="training loss") as axes:
        places = [max(delay, 2) for delay in delays]
        for index, name in enumerate(SERVERS):
            color = f"C{index}"
            axes.loglog(places, list(tuned[name].values()), "o-", color=color, label=f"{name}, tuned for each delay")
            axes.loglog(places, list(kept[name].values()), "s:", color=color, label=f"{name}, as tuned without delay")
        axes.set_xticks(places, [str(delay) for delay in delays])
    last = delays[-1]
    setting = (
        f"digits, softmax regression, {WORKERS} workers, {task.gradients} gradients of 16 images, Poisson delays of "
        f"mean {last}, {len(task.seeds)} seed(s); learning rate the best of {len(lrs)}"
    )
    growth = {name: kept[name][last] / kept[name][0] for name in SERVERS}
    return [
        Finding(
            "A server with Adagrad tolerates stale gradients better than one with SGD", "better",
            kept["Adagrad"][last], kept["SGD"][last], "training loss",
            kept["Adagrad"][last] < kept["SGD"][last] and growth["Adagrad"] < growth["SGD"] if full else None,
            f"{setting} without delay, then kept; grows {growth['Adagrad']:.1f} times, SGD's {growth['SGD']:.1f}; "
            f"holds if loss and growth are the smaller ones; {DIVERGED:g} stands for anything above",
        ),
        Finding(
            "and so it does where both are tuned for the delay", "better", tuned["Adagrad"][last], tuned["SGD"][last],
            "training loss", tuned["Adagrad"][last] < tuned["SGD"][last] if full else None,
            f"{setting} for the delay",
        ),
        Finding(
            "Adagrad that knows the delays tolerates them better than Adagrad", "better", kept["delay-tolerant"][last],
            kept["Adagrad"][last], "training loss",
            kept["delay-tolerant"][last] < kept["Adagrad"][last] if full else None,
            f"{setting} without delay, then kept; tuned for the delay: {tuned['delay-tolerant'][last]:.3f} against "
            f"{tuned['Adagrad'][last]:.3f}",
        ),
    ], path  # fmt: skip


def _averaging(digits: Digits, budget: Budget) -> tuple[list[Finding], Path]:
    full = budget.name == "full"
    periods = budget.choose(smoke=(4, 8), full=(1, 4, 16))
    task = _Task(digits, budget.choose(256, 1024), range(budget.seed, budget.seed + budget.choose(1, 2)))
    lrs = budget.choose(smoke=(0.2,), full=LEARNING_RATES)
    alpha = 0.9 / WORKERS
    elastic: Curve = {}
    plain: Curve = {}
    for every in periods:
        elastic[every] = task.best(_elastic(alpha, every), lrs)[0]
        plain[every] = task.best(_plain(every), lrs)[0]
    path = budget.path("training-loss-by-period.svg")
    with figure(path, x="local steps between exchanges", y="training loss") as axes:
        axes.loglog(periods, list(elastic.values()), "o-", label="elastic averaging, the center")
        axes.loglog(periods, list(plain.values()), "s-", label="plain averaging, the last mean")
        axes.set_xticks(periods, [str(every) for every in periods])
    last = periods[-1]
    return [
        Finding(
            "Elastic averaging beats replacing the workers by their mean", "better", elastic[last], plain[last],
            "training loss", elastic[last] < plain[last] if full else None,
            f"digits, softmax regression, {WORKERS} workers, {task.gradients} gradients of 16 images in all, "
            f"synchronous, an exchange every {last} steps, alpha 0.9/p, {len(task.seeds)} seed(s), learning rates the "
            f"best of {len(lrs)}; every {periods[0]}: {elastic[periods[0]]:.3f} against {plain[periods[0]]:.3f}. The "
            "paper trains deep networks, where the workers' freedom to explore is the point; this problem is convex",
        )
    ], path  # fmt: skip


def _elastic(alpha: float, every: int) -> Callable[[float], Scheme]:
    return lambda lr: EASGD(functools.partial(sgd, lr=lr), alpha, every, synchronous=True)


def _plain(every: int) -> Callable[[float], Scheme]:
    return lambda lr: LocalAveraging(functools.partial(sgd, lr=lr), every)
