"""Probes: the derivative of an objective along one direction, by forward passes only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from covector.errors import ArgumentError
from covector.gradients import Gradient, Perturbed
from covector.objective import Batch, Objective

__all__ = ["Probe", "check_eps", "loss_at", "same_randomness", "slope_central", "slope_forward", "slope_jvp"]

Probe = Literal["central", "forward", "jvp"]


def check_eps(eps: float) -> None:
    """Raise :class:`~covector.errors.ArgumentError` unless ``eps`` is a positive finite number.

    >>> check_eps(2.0**-10)
    """
    if not 0.0 < eps < float("inf"):
        raise ArgumentError("eps", eps, "a positive number, for example 2**-10")


@contextmanager
def same_randomness(objective: Objective) -> Iterator[torch.Tensor | None]:
    """Lets several evaluations of a module in training mode see the same dropout masks.

    Yields the generator's state to hand to :func:`loss_at`, or ``None`` for a module in evaluation mode.

    >>> with same_randomness(Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)) as state:
    ...     state is None
    False
    """
    random = objective.module is not None and objective.module.training
    yield torch.get_rng_state() if random else None


@torch.no_grad()
def loss_at(
    objective: Objective,
    batch: Batch,
    direction: Gradient | None = None,
    scale: float = 0.0,
    state: torch.Tensor | None = None,
) -> float:
    """The loss at ``params + scale * direction``; the live parameters are only read.

    Args:
        objective: what to evaluate.
        batch: on what.
        direction: any carrier, or ``None`` for the loss at the parameters themselves.
        scale: the step along it.
        state: state of torch's CPU generator to start from, see :func:`same_randomness`.

    >>> from covector.gradients import Dense
    >>> f = Objective.from_function(lambda p, b: (p["x"] ** 2).sum(), {"x": torch.ones(1)})
    >>> loss_at(f, None, Dense({"x": torch.ones(1)}), 0.5)
    2.25
    """
    if state is not None:
        torch.set_rng_state(state)
    if direction is None:
        return float(objective(batch))
    with Perturbed(objective.params, direction, scale):
        loss = objective(batch)
    return float(loss)


def slope_central(objective: Objective, batch: Batch, direction: Gradient, eps: float) -> tuple[float, float]:
    """``(loss, slope)`` by ``(l(theta + eps z) - l(theta - eps z)) / (2 eps)``; exact for quadratics.

    >>> from covector.gradients import Dense
    >>> f = Objective.from_function(lambda p, b: (p["x"] ** 2).sum(), {"x": torch.ones(1)})
    >>> slope_central(f, None, Dense({"x": torch.ones(1)}), 0.5)[1]
    2.0
    """
    with same_randomness(objective) as state:
        plus = loss_at(objective, batch, direction, eps, state)
        minus = loss_at(objective, batch, direction, -eps, state)
    return (plus + minus) / 2, (plus - minus) / (2 * eps)


def slope_forward(
    objective: Objective, batch: Batch, direction: Gradient, eps: float, loss: float, state: torch.Tensor | None
) -> tuple[float, float]:
    """``(loss at theta + eps z, slope)`` by ``(l(theta + eps z) - loss) / eps``, ``loss`` being known already.

    >>> from covector.gradients import Dense
    >>> f = Objective.from_function(lambda p, b: p["x"].sum(), {"x": torch.ones(1)})
    >>> slope_forward(f, None, Dense({"x": torch.ones(1)}), 0.5, 1.0, None)
    (1.5, 1.0)
    """
    plus = loss_at(objective, batch, direction, eps, state)
    return plus, (plus - loss) / eps


def slope_jvp(objective: Objective, batch: Batch, direction: Gradient) -> tuple[float, float]:
    """``(loss, slope)`` by one forward-mode pass: no step size, no truncation error, no tape.

    >>> from covector.gradients import Dense
    >>> f = Objective.from_function(lambda p, b: (p["x"] ** 3).sum(), {"x": torch.ones(1)})
    >>> slope_jvp(f, None, Dense({"x": torch.ones(1)}))
    (1.0, 3.0)
    """
    primal = {name: p.detach() for name, p in objective.params.items()}
    tangent = direction.dense(primal)
    result = torch.func.jvp(lambda p: objective(batch, p), (primal,), (tangent,))
    return float(result[0].detach()), float(result[1].detach())
