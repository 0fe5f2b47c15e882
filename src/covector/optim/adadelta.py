"""Adadelta: steps in the units of the parameters, by the ratio of two roots of mean squares.

With ``E_g = EMA(rho)(g^2)``::

    d = sqrt(E_d + eps) / sqrt(E_g + eps) * g,    E_d = EMA(rho)(d^2),    p <- p - lr d

The published method is ``lr = 1``: scaling the loss changes nothing, and scaling a parameter's unit scales its step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["ADADELTA", "Adadelta", "adadelta"]


def adadelta(g: Any, square: Any, moved: Any, rho: Any, rest: Any, eps: Any) -> tuple[Any, ...]:
    """``sqrt(E_d + eps) / sqrt(E_g + eps) * g``; Zeiler 2012, Algorithm 1."""
    square = rho * square + rest * g * g
    d = sqrt(moved + eps) / sqrt(square + eps) * g
    return d, square, rho * moved + rest * d * d


def adadelta_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``rho, 1 - rho, eps``."""
    return group["rho"], 1.0 - group["rho"], group["eps"]


ADADELTA = Rule(adadelta, ("square_avg", "acc_delta"), adadelta_numbers)


class Adadelta(Optimizer):
    """Adadelta: no learning rate to choose; the ratio of the sizes of past steps and gradients takes its place.

    Args:
        params: a module, parameters, or param groups.
        lr: factor of each step, default 1, as published.
        rho: decay of both averages.
        eps: inside both roots; it sets the size of the first steps, so it is not negligible.
        weight_decay: strength; added to the gradient (L2).
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, Algorithm 1.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> p.grad = torch.tensor([2.0])
    >>> Adadelta([p], rho=0.75, eps=1.0).update()[p]
    tensor([-1.4142])
    """

    fractions = ("rho",)
    positive = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        options = {"decoupled": False, "rho": rho, "eps": eps, **options}
        super().__init__(params, Slots(ADADELTA), lr, weight_decay=weight_decay, **options)
