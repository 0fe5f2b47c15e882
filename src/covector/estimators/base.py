"""Estimator: objective and batch to a loss and a gradient, in whatever carrier suits the method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from covector.errors import ArgumentError, NonFiniteError
from covector.gradients import Gradient
from covector.objective import Batch, Objective

__all__ = ["Estimate", "Estimator", "NonFinitePolicy"]

NonFinitePolicy = Literal["raise", "skip"]


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns.

    Args:
        loss: the loss at the parameters (for two-sided probes the mean of the two sides).
        gradient: the estimate, in the estimator's carrier.
        evaluations: forward passes it took; a backward pass counts as two.
        skipped: whether the loss was not finite and the policy was ``"skip"``: the gradient is then zero.
    """

    loss: float
    gradient: Gradient
    evaluations: int = 1
    skipped: bool = False


class Estimator(ABC):
    """Base of all estimators: the policy for non-finite losses, ``.backward`` and the state.

    Args:
        nonfinite: ``"raise"`` (default) or ``"skip"``: what happens when the loss is NaN or infinite.
            Skipped estimates have a zero gradient and are counted in :attr:`skipped`.
    """

    def __init__(self, nonfinite: NonFinitePolicy = "raise") -> None:
        if nonfinite not in ("raise", "skip"):
            raise ArgumentError("nonfinite", nonfinite, "'raise' or 'skip'")
        self.nonfinite = nonfinite
        self.skipped = 0

    @abstractmethod
    def estimate(self, objective: Objective, batch: Batch) -> Estimate:
        """One estimate; :meth:`__call__` adds the checks."""

    def __call__(self, objective: Objective, batch: Batch) -> Estimate:
        """Loss and gradient of ``objective`` on ``batch`` at its live parameters, which are not changed.

        Raises:
            NonFiniteError: the loss or the gradient is NaN or infinite and the policy is ``"raise"``.
        """
        estimate = self.estimate(objective, batch)
        if math.isfinite(estimate.loss) and estimate.gradient.isfinite():
            return estimate
        if self.nonfinite == "raise":
            raise NonFiniteError(
                f"loss={estimate.loss}: the loss or its gradient is not finite in {type(self).__name__}; lower the "
                "learning rate or eps, or pass nonfinite='skip' to leave out such batches"
            )
        self.skipped += 1
        return Estimate(estimate.loss, estimate.gradient.zeroed(), estimate.evaluations, skipped=True)

    def backward(self, objective: Objective, batch: Batch) -> float:
        """Add the estimated gradient to ``.grad`` of the parameters, as ``loss.backward()`` would; returns the loss.

        >>> import torch
        >>> from covector import Objective, ZerothOrder
        >>> model = torch.nn.Linear(2, 1)
        >>> objective = Objective(model, torch.nn.functional.mse_loss)
        >>> loss = ZerothOrder().backward(objective, (torch.ones(4, 2), torch.ones(4, 1)))
        >>> model.weight.grad.shape
        torch.Size([1, 2])
        """
        estimate = self(objective, batch)
        for name, dense in estimate.gradient.dense(objective.params).items():
            parameter = objective.params[name]
            if parameter.grad is None:
                parameter.grad = dense
            else:
                parameter.grad.add_(dense)
        return estimate.loss

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on exactly where this estimator stands."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.skipped = int(state["skipped"])
