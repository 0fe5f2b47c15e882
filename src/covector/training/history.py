"""History: what a training run leaves behind besides the parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

__all__ = ["History", "Stopped"]

Stopped = Literal["running", "finished", "exhausted", "interrupted", "callback", "error"]


@dataclass
class History:
    """Losses, metrics, timings and evaluations of a run, over all of its resumed parts.

    Args:
        losses: the loss of each step (of a skipped step: not finite).
        seconds: wall-clock seconds of each step, without evaluations and checkpoints.
        metrics: other numbers of each step: ``"lr"``, and ``"norm"`` of the gradient where it was clipped, and what
            callbacks add to their record.
        evaluations: one dictionary an evaluation: ``"step"`` and what ``evaluate`` returned.
        stopped: why the run ended: ``"finished"`` (all steps, or one pass), ``"exhausted"`` (the batches ended
            before the steps did), ``"interrupted"`` (Ctrl-C), ``"callback"`` or ``"error"``.

    >>> history = History(losses=[2.0, 1.0], seconds=[0.1, 0.1])
    >>> history.steps, history.losses[-1]
    (2, 1.0)
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    stopped: Stopped = "running"

    @property
    def steps(self) -> int:
        """Steps taken, skipped ones included."""
        return len(self.losses)

    def add_step(self, loss: float, seconds: float, metrics: dict[str, float]) -> None:
        """Append one step."""
        self.losses.append(loss)
        self.seconds.append(seconds)
        self.add_metrics(metrics)

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Append further numbers of the last step."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """The history as tensors and plain values."""
        series = {"losses": self.losses, "seconds": self.seconds}
        return {
            **{name: torch.tensor(values, dtype=torch.float64) for name, values in series.items()},
            "metrics": {name: torch.tensor(values, dtype=torch.float64) for name, values in self.metrics.items()},
            "evaluations": [dict(evaluation) for evaluation in self.evaluations],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.losses, self.seconds = state["losses"].tolist(), state["seconds"].tolist()
        self.metrics = {name: values.tolist() for name, values in state["metrics"].items()}
        self.evaluations = [dict(evaluation) for evaluation in state["evaluations"]]
