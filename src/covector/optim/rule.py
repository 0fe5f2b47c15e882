"""An elementwise update rule: one pure function of one element, and the numbers it needs at step t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Rule"]

Coefficients = Callable[[Any, Mapping[str, Any]], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Rule:
    """What an elementwise optimizer does to a gradient, before learning rate and weight decay.

    Args:
        update: ``update(g, *states, *coefficients) -> (direction, *new states)``; arithmetic, ``abs`` and the
            functions of :mod:`covector.optim.operations` only, so that it runs on a tensor, on a list of tensors
            and as compiled scalar code alike. The parameter moves by ``-lr * direction``.
        states: names of the tensors kept for each parameter, of its shape, zero at the start.
        coefficients: ``coefficients(t, group)``: the numbers of step t (from 1) for a param group, in double
            precision.
        initial: states that start at another value than zero: name of the hyperparameter that holds it.
        rated: the coefficients hold the learning rate already; the parameter then moves by ``-direction``.

    >>> import torch
    >>> heavy_ball = Rule(lambda g, u, mu: (mu * u + g, mu * u + g), ("u",), lambda t, group: (group["momentum"],))
    >>> heavy_ball.update(torch.tensor(1.0), torch.tensor(2.0), 0.5)
    (tensor(2.), tensor(2.))
    """

    update: Callable[..., tuple[Any, ...]]
    states: tuple[str, ...]
    coefficients: Coefficients
    initial: Mapping[str, str] = field(default_factory=dict)
    rated: bool = False
