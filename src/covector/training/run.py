"""Run: what a callback sees of the training, and what a checkpoint holds of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.estimators import Estimator
from covector.objective import Objective
from covector.training.batches import Cursor
from covector.training.callbacks import Callback
from covector.training.checkpoint import checkpoint_path, prune, read_checkpoint, write_checkpoint
from covector.training.history import History
from covector.training.randomness import capture_random, restore_random, unchanged_random
from covector.training.steps import StepRule

__all__ = ["Run"]

# checkpoints that stay in the output folder
_KEEP = 2


@dataclass
class Run:
    """The parts of a training run and where it stands.

    Args:
        objective: what is minimized.
        estimator: where the gradients come from.
        rule: how they become steps.
        cursor: where the batches come from.
        scheduler: learning-rate scheduler of torch, if any.
        callbacks: who is told, metrics and progress included.
        steps: the step to reach, or ``None`` for one pass over the batches.
        out: output folder, or ``None``.
        history: what has happened so far.
        stop: set it to end the run after the current step.

    >>> from covector.training import Callback
    >>> class StopWhenSmall(Callback):
    ...     def on_step(self, run, record):
    ...         run.stop = record["loss"] < 0.1
    """

    objective: Objective
    estimator: Estimator
    rule: StepRule
    cursor: Cursor
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    callbacks: list[Callback]
    steps: int | None
    out: Path | None
    history: History = field(default_factory=History)
    stop: bool = False
    saved: int | None = None

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self.history.steps

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that takes the steps."""
        return self.rule.optimizer

    def setup(self) -> dict[str, Any]:
        """What has to be the same when a run is resumed."""
        return {
            "estimator": type(self.estimator).__name__,
            "update": f"{type(self.rule).__name__} by {type(self.optimizer).__name__}",
            "scheduler": type(self.scheduler).__name__,
            "callbacks": [type(callback).__name__ for callback in self._with_state()],
        }

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit."""
        return {
            "setup": self.setup(),
            "parameters": self.rule.parameters(),
            "buffers": self._buffers(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "estimator": self.estimator.state_dict(),
            "callbacks": [callback.state_dict() for callback in self._with_state()],
            "data": self.cursor.state_dict(),
            "random": capture_random(),
            "history": self.history.state_dict(),
        }

    def save(self) -> None:
        """Write a checkpoint of this step to the output folder, unless it is there."""
        if self.out is None or self.saved == self.step:
            return
        write_checkpoint(checkpoint_path(self.out, self.step), self.state_dict())
        prune(self.out, _KEEP)
        self.saved = self.step

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CorruptionError: the checkpoint is not whole.
            MismatchError: it belongs to another setup or loader; nothing was changed.
            ArgumentError: more steps were taken than asked for, or the batches are too few; nothing was changed.
        """
        state = read_checkpoint(path)
        self._check(state, path)
        with unchanged_random():
            self.cursor.load_state_dict(state["data"])
        self.rule.restore(state["parameters"])
        with torch.no_grad():
            for name, buffer in self._buffers().items():
                buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.estimator.load_state_dict(state["estimator"])
        for callback, own in zip(self._with_state(), state["callbacks"], strict=True):
            callback.load_state_dict(own)
        self.history.load_state_dict(state["history"])
        restore_random(state["random"])
        self.saved = self.step

    def _check(self, state: dict[str, Any], path: Path) -> None:
        taken = state["history"]["losses"].numel()
        if self.steps is not None and taken > self.steps:
            raise ArgumentError("steps", self.steps, f"at least the {taken} steps already taken in {path}")
        for name, value in self.setup().items():
            if state["setup"][name] != value:
                raise MismatchError(
                    f"{path}: {name} is {state['setup'][name]} in the checkpoint but {value} now; use the "
                    "same, another out folder, or resume=False to start over"
                )
        self.rule.check(state["parameters"])
        if state["buffers"].keys() != self._buffers().keys():
            raise MismatchError(f"{path}: the module's buffers are not those of the checkpoint")
        saved, mine = state["optimizer"]["param_groups"], self.optimizer.state_dict()["param_groups"]
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in mine]:
            raise MismatchError(f"{path}: the optimizer's parameter groups are not those of the checkpoint")

    def _buffers(self) -> dict[str, Tensor]:
        return {} if self.objective.module is None else dict(self.objective.module.named_buffers())

    def _with_state(self) -> list[Callback]:
        return [callback for callback in self.callbacks if type(callback).state_dict is not Callback.state_dict]
