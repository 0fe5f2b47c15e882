"""One trial: an optimizer at one learning rate trains one model, and what came of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from covector.compare.optimizers import build
from covector.compare.schedules import factor
from covector.compare.tasks import Task, find_task
from covector.errors import CovectorError
from covector.optim import Optimizer

__all__ = ["Result", "Trial", "run_trial"]

_POINTS = 100
_LOOKS = 10


@dataclass(frozen=True)
class Trial:
    """What decides the outcome of a trial.

    Args:
        task: name of the task.
        optimizer: name of the optimizer, with options.
        lr: the peak learning rate.
        seed: of initial weights and batches.
        steps: how many.
        schedule: of the learning rate.

    >>> Trial("regression", "adamw", 0.1, 0, 10, "cosine").key
    '733711fe7b776758'
    """

    task: str
    optimizer: str
    lr: float
    seed: int
    steps: int
    schedule: str

    @property
    def key(self) -> str:
        """A name of the trial, the same on every machine."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Result:
    """What came of a trial.

    Args:
        value: validation loss after the last step, None where the run diverged or failed.
        diverged: the loss stopped being a number.
        error: what the optimizer raised, if anything.
        training: pairs of step and mean training loss since the pair before.
        validation: pairs of step and validation loss.
        step_seconds: median time of a whole step, processor time.
        optimizer_seconds: median time of the optimizer's part of it.
        state_bytes: bytes the optimizer keeps for each parameter.
    """

    value: float | None = None
    diverged: bool = False
    error: str = ""
    training: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    step_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    state_bytes: float = 0.0

    @property
    def loss(self) -> float:
        """The validation loss; infinite for a run that has none.

        >>> Result().loss
        inf
        """
        return math.inf if self.value is None else self.value


def run_trial(trial: Trial, stopped: Callable[[], bool] = lambda: False) -> Result | None:
    """Run a trial. All of the result but the times is a function of the trial.

    Args:
        trial: what to run.
        stopped: asked before each step; when it says yes the trial is given up.

    Returns:
        The result, or None where it was given up. An optimizer that diverges or raises is a result.

    >>> first, again = (run_trial(Trial("regression", "adamw", 0.1, 0, 10, "cosine")) for _ in range(2))
    >>> first.value == again.value
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        task = find_task(trial.task)(trial.seed)
        result = Result()
        try:
            optimizer = build(trial.optimizer, task.model, trial.lr)
            finished = _train(trial, task, optimizer, result, stopped)
        except (ArithmeticError, RuntimeError, ValueError, TypeError, CovectorError) as error:
            result.error = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            return result
    return result if finished else None


def _train(trial: Trial, task: Task, optimizer: Any, result: Result, stopped: Callable[[], bool]) -> bool:
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    wholes, parts, recent = [], [], []
    width, looks = max(1, trial.steps // _POINTS), max(1, trial.steps // _LOOKS)
    task.model.train()
    for step, batch in enumerate(task.batches(trial.steps)):
        if stopped():
            return False
        begin = time.thread_time()
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(trial.schedule, step, trial.steps)
        optimizer.zero_grad()
        loss = task.loss(batch)
        loss.backward()
        middle = time.thread_time()
        _step(optimizer, loss.detach())
        end = time.thread_time()
        wholes.append(end - begin)
        parts.append(end - middle)
        recent.append(float(loss.detach()))
        if not math.isfinite(recent[-1]):
            result.diverged = True
            return True
        if (step + 1) % width == 0:
            result.training.append((step + 1, statistics.fmean(recent)))
            recent = []
        if (step + 1) % looks == 0 or step + 1 == trial.steps:
            result.validation.append((step + 1, task.validation()))
    last = result.validation[-1][1]
    result.diverged = not math.isfinite(last)
    result.validation = [(step, value) for step, value in result.validation if math.isfinite(value)]
    result.value = None if result.diverged else last
    result.step_seconds, result.optimizer_seconds = statistics.median(wholes), statistics.median(parts)
    result.state_bytes = _bytes(optimizer) / sum(p.numel() for p in task.model.parameters())
    return True


def _step(optimizer: Any, loss: torch.Tensor) -> None:
    if isinstance(optimizer, Optimizer):
        optimizer.step(loss=loss)
    else:
        optimizer.step()


def _bytes(optimizer: Any) -> int:
    def count(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            return value.numel() * value.element_size()
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return sum(map(count, value)) if isinstance(value, (list, tuple)) else 0

    return sum(map(count, optimizer.state.values()))
