"""Settings of a comparison."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from covector.compare.optimizers import resolve
from covector.compare.schedules import SCHEDULES
from covector.compare.tasks import find_task
from covector.errors import ArgumentError, require_extra

__all__ = ["TUNERS", "Settings", "cores"]

TUNERS = ("grid", "optuna")


def cores() -> int:
    """Cores this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a comparison.

    Args:
        task: name of a task or ``"module:function"``; see :func:`~covector.compare.find_task`.
        optimizers: names, or ``"all"``; see :func:`~covector.compare.resolve`.
        steps: of each run.
        seeds: runs at the best learning rate, each with initial weights and batches of its own.
        budget: learning rates tried for each optimizer, the same number for all.
        schedule: of the learning rate, one of :data:`~covector.compare.SCHEDULES`.
        tuner: ``"grid"`` or ``"optuna"``.

    Raises:
        ArgumentError: a value out of range or a name that is not known; the message says which.
        MissingExtraError: optuna or a package of optimizers is asked for and not installed.

    >>> Settings("regression", ("adamw",)).budget
    7
    """

    task: str
    optimizers: tuple[str, ...]
    steps: int = 300
    seeds: int = 3
    budget: int = 7
    schedule: str = "cosine"
    tuner: str = "grid"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seeds", 1), ("budget", 1)):
            if getattr(self, name) < least:
                raise ArgumentError(name, getattr(self, name), f"a whole number of at least {least}")
        if self.schedule not in SCHEDULES:
            raise ArgumentError("schedule", self.schedule, "one of " + ", ".join(SCHEDULES))
        if self.tuner not in TUNERS:
            raise ArgumentError("tuner", self.tuner, "one of " + ", ".join(TUNERS))
        if self.tuner == "optuna":
            require_extra("optuna", "compare")
        find_task(self.task)
        names = tuple(dict.fromkeys(full for name in self.optimizers for full in resolve(name)))
        if not names:
            raise ArgumentError("optimizers", self.optimizers, "at least one name, or 'all'")
        object.__setattr__(self, "optimizers", names)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)
