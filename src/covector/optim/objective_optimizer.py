"""Optimizers that need more of an objective than one gradient: its curvature, its outputs, its loss elsewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, CompositionError, NonFiniteError
from covector.objective import Batch, Objective
from covector.optim.advance import state_dtype
from covector.optim.checks import check_nonnegative
from covector.optim.displaced import RandomState, displaced
from covector.trees import Params, unflatten

__all__ = ["ObjectiveOptimizer"]

_NOTHING: Any = object()


class ObjectiveOptimizer(torch.optim.Optimizer):
    """Base of the optimizers that are given an objective and step on a batch: ``optimizer.step(batch)``.

    A ``torch.optim.Optimizer`` with one param group, the objective's parameters: schedulers, ``zero_grad`` and
    ``state_dict`` work as usual. What a step adapts (damping, step size) are numbers of the group.

    Args:
        objective: whose trainable parameters step.
        lr: learning rate.
        weight_decay: strength; decoupled.
        hyper: further hyperparameters.

    Raises:
        CompositionError: no objective is given.
        ArgumentError: a hyperparameter out of range.

    >>> class Plain(ObjectiveOptimizer):
    ...     def direct(self, batch):
    ...         leaves = self.leaves()
    ...         loss = self.objective(batch, leaves)
    ...         self.move(list(torch.autograd.grad(loss, list(leaves.values()))), -float(self.group["lr"]))
    ...         return loss.detach()
    >>> x = torch.tensor([2.0])
    >>> optimizer = Plain(Objective.from_function(lambda params, batch: params["x"].square().sum(), {"x": x}), lr=0.25)
    >>> optimizer.step(None), x
    (tensor(4.), tensor([1.]))
    """

    def __init__(self, objective: Objective, lr: float, weight_decay: float = 0.0, **hyper: Any) -> None:
        if not isinstance(objective, Objective):
            raise CompositionError(
                f"{type(self).__name__} was given a {type(objective).__name__}: it needs more than gradients; pass "
                "Objective(model, loss), and step(batch)"
            )
        self.objective = objective
        defaults = {"lr": lr, "weight_decay": weight_decay, **hyper}
        self.check(defaults)
        super().__init__([{"params": list(objective.params.items())}], defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse hyperparameters that cannot work."""
        check_nonnegative(group, "lr", "weight_decay")

    def direct(self, batch: Batch) -> Tensor:
        """Move the parameters by a step for this batch; returns the loss before it, 0-d. Subclasses write this."""
        raise CompositionError(f"{type(self).__name__} has no direction; define direct(self, batch)")

    def step(self, batch: Batch = _NOTHING, *_: Any) -> Tensor:  # type: ignore[override]
        """One step on a batch.

        Args:
            batch: as the objective takes it.

        Returns:
            The loss on it before the step, 0-d.

        Raises:
            ArgumentError: there is no batch, or a closure in its place.
            NonFiniteError: the loss is not finite. Nothing has changed then.
        """
        if batch is _NOTHING or (callable(batch) and not isinstance(batch, Tensor)):
            given = "nothing" if batch is _NOTHING else "a closure"
            raise ArgumentError("batch", given, f"step(batch): {type(self).__name__} evaluates the objective itself")
        return self.direct(batch)

    @property
    def group(self) -> dict[str, Any]:
        """The param group."""
        found: dict[str, Any] = self.param_groups[0]
        return found

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in the objective's order."""
        found: list[Tensor] = self.group["params"]
        return found

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The objective decides what is trained.

        Raises:
            CompositionError: there is a group already.
        """
        if self.param_groups:
            raise CompositionError("the objective decides what is trained: give it `trainable`")
        super().add_param_group(param_group)

    def leaves(self) -> Params:
        """The parameters as leaves of a graph, in the same memory."""
        return {name: p.detach().requires_grad_() for name, p in self.objective.params.items()}

    def parts(self, flat: Tensor) -> list[Tensor]:
        """A flat vector as a tensor for each parameter, of its dtype."""
        views = unflatten(flat, self.objective.params)
        return [views[name].to(p.dtype) for name, p in self.objective.params.items()]

    def loss_at(self, batch: Batch, delta: list[Tensor], random: RandomState) -> float:
        """The loss at parameters displaced by ``delta``, with the random numbers of a state."""
        with displaced(self.params, delta, self.objective.module, random), torch.no_grad():
            return float(self.objective(batch))

    def checked(self, loss: Tensor) -> float:
        """The loss as a number.

        Raises:
            NonFiniteError: it is NaN or infinite.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"loss={value}: not finite before the step; lower lr, or raise the damping")
        return value

    @torch.no_grad()
    def move(self, direction: list[Tensor], step: float) -> None:
        """``p <- p - lr * weight_decay * p + step * direction``."""
        if decay := float(self.group["lr"]) * self.group["weight_decay"]:
            torch._foreach_mul_(self.params, 1.0 - decay)
        torch._foreach_add_(self.params, torch._foreach_mul(direction, step))

    def averaged(self, direction: list[Tensor], momentum: float) -> list[Tensor]:
        """The exponential average of directions, without its bias toward zero."""
        average = []
        for p, d in zip(self.params, direction, strict=True):
            state = self.state[p]
            if "exp_avg" not in state:
                state["exp_avg"], state["step"] = torch.zeros_like(p, dtype=state_dtype(p.dtype)), 0
            state["step"] += 1
            state["exp_avg"].lerp_(d.to(state["exp_avg"].dtype), 1.0 - momentum)
            average.append((state["exp_avg"] / (1.0 - momentum ** state["step"])).to(p.dtype))
        return average

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state from ``state_dict()``, bit for bit."""
        super().load_state_dict(state_dict)
        # torch casts states to their parameter's dtype
        for index, param in enumerate(self.params):
            if index in state_dict["state"]:
                self.state[param] = copy.deepcopy(state_dict["state"][index])
                for name, value in self.state[param].items():
                    if isinstance(value, Tensor):
                        self.state[param][name] = value.to(param.device)
