"""Flat minima on a small task: 400 digits, every fifth with a wrong label, and a network that can learn them all.

Each method has the same number of settings; the best has the highest accuracy on 300 validation images, mean
over the seeds. The 360 held-out images choose nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from covector.curvature import Hessian
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.linalg import eigsh
from covector.objective import Objective

__all__ = ["SETTING", "Make", "NoisyDigits", "Outcome", "Run", "compare"]

Make = Callable[[list[Tensor]], Any]
Pairs = tuple[Tensor, Tensor]
TRAIN, VALIDATION, NOISE, BATCH = 400, 300, 0.2, 32
SETTING = (
    f"{TRAIN} digits with {NOISE:.0%} wrong labels, network 64-128-128-10, batches of {BATCH}; each method at the best "
    f"of four settings by {VALIDATION} validation images, mean over the seeds"
)


@dataclass(frozen=True)
class Run:
    """One training run: accuracies, the training loss with its wrong labels, and its Hessian's largest eigenvalue."""

    validation: float
    accuracy: float
    loss: float
    sharpness: float


@dataclass(frozen=True)
class Outcome:
    """The best setting of a method, and its runs, one a seed."""

    setting: str
    runs: tuple[Run, ...]

    def mean(self, name: str) -> float:
        """Mean of a field over the seeds."""
        return statistics.fmean(getattr(run, name) for run in self.runs)

    def beats(self, other: Outcome, name: str, lower: bool = False) -> bool | None:
        """Whether a field is higher (lower) than another's on the same seeds; None within two standard errors."""
        pairs = zip(self.runs, other.runs, strict=True)
        gaps = [(getattr(a, name) - getattr(b, name)) * (-1.0 if lower else 1.0) for a, b in pairs]
        noise = 2.0 * statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else math.inf
        return None if abs(statistics.fmean(gaps)) <= noise else statistics.fmean(gaps) > 0.0


@dataclass(frozen=True)
class NoisyDigits:
    """The task; which images and labels, is a function of the seed."""

    train: Pairs
    validation: Pairs
    held_out: Pairs

    @classmethod
    def load(cls, digits: Digits, seed: int) -> NoisyDigits:
        """Draw the images and the wrong labels."""
        draw = torch.Generator().manual_seed(seed)
        (inputs, targets), order = digits.train, torch.randperm(len(digits.train[1]), generator=draw)
        own, other = order[:TRAIN], order[TRAIN : TRAIN + VALIDATION]
        labels = targets[own].clone()
        wrong = torch.rand(TRAIN, generator=draw) < NOISE
        labels[wrong] = (labels[wrong] + torch.randint(1, 10, (int(wrong.sum()),), generator=draw)) % 10
        return cls((inputs[own], labels), (inputs[other], targets[other]), digits.held_out)

    def run(self, make: Make, epochs: int, seed: int) -> Run:
        """Train a fresh network; the optimizer's ``step`` is given a closure."""
        torch.manual_seed(seed)
        layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
        model = nn.Sequential(*layers)
        optimizer = make(list(model.parameters()))
        exact = getattr(optimizer, "mode", "") == "exact"
        inputs, targets = self.train
        draw = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for part in torch.randperm(TRAIN, generator=draw).split(BATCH):

                def closure(part: Tensor = part) -> Tensor:
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(inputs[part]), targets[part])
                    if not exact:
                        loss.backward()
                    return loss

                optimizer.step(closure)
        return self._measured(model)

    def _measured(self, model: nn.Module) -> Run:
        objective = Objective(model, nn.functional.cross_entropy)
        with torch.no_grad():
            loss = float(objective(self.train))
        if not loss < 1e6:
            return Run(0.0, 0.0, 1e6, 1e6)
        top = eigsh(Hessian(objective, self.train), k=1, tol=1e-2).values[0]
        return Run(_accuracy(model, self.validation), _accuracy(model, self.held_out), loss, float(top))


def _accuracy(model: nn.Module, pairs: Pairs) -> float:
    with torch.no_grad():
        return float((model(pairs[0]).argmax(1) == pairs[1]).double().mean())


def compare(
    budget: Budget, methods: Mapping[str, tuple[Mapping[str, Make], float]], epochs: int, seeds: int
) -> dict[str, Outcome]:
    """Each method at the best of its settings.

    Args:
        budget: at smoke, the first setting of each stands for all.
        methods: settings by name, and the share of the epochs that the method trains for.
        epochs: of the task.
        seeds: how many.
    """
    digits, found = Digits.load(), {}
    tasks = [NoisyDigits.load(digits, budget.seed + seed) for seed in range(seeds)]
    for name, (settings, share) in methods.items():
        length = max(1, round(share * epochs))
        tried = {}
        for setting, make in list(settings.items())[: budget.choose(smoke=1, full=None)]:
            tried[setting] = tuple(task.run(make, length, budget.seed + i) for i, task in enumerate(tasks))
        outcomes = [Outcome(setting, runs) for setting, runs in tried.items()]
        found[name] = max(outcomes, key=lambda outcome: outcome.mean("validation"))
    return found
