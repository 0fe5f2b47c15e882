"""RMSprop: the gradient over the root of its mean square.

With ``v = EMA(alpha)(g^2)``, centered ``v <- v - EMA(alpha)(g)^2``::

    torch   d = g / (sqrt(v) + eps)
    paper   d = g / sqrt(v + eps)

and with momentum ``u <- mu u + d`` in place of d.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.checks import check_form
from covector.optim.operations import maximum, sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["RMSprop", "rmsprop"]


def rmsprop(g: Any, v: Any, a: Any, rest: Any, inner: Any, outer: Any) -> tuple[Any, ...]:
    """``g / (sqrt(v + inner) + outer)``; Hinton, Srivastava, Swersky 2012, lecture 6e."""
    v = a * v + rest * g * g
    return g / (sqrt(v + inner) + outer), v


def rmsprop_momentum(g: Any, v: Any, u: Any, a: Any, rest: Any, inner: Any, outer: Any, mu: Any) -> tuple[Any, ...]:
    """``u = mu u + g / (sqrt(v + inner) + outer)``."""
    v = a * v + rest * g * g
    u = mu * u + g / (sqrt(v + inner) + outer)
    return u, v, u


def centered(g: Any, v: Any, m: Any, a: Any, rest: Any, inner: Any, outer: Any) -> tuple[Any, ...]:
    """The variance in place of the mean square; Graves 2013, equations 38 to 41."""
    v = a * v + rest * g * g
    m = a * m + rest * g
    variance = v - m * m
    # rounding can leave it below zero
    variance = maximum(variance, variance - variance)
    return g / (sqrt(variance + inner) + outer), v, m


def centered_momentum(
    g: Any, v: Any, m: Any, u: Any, a: Any, rest: Any, inner: Any, outer: Any, mu: Any
) -> tuple[Any, ...]:
    """Momentum of what :func:`centered` gives."""
    v = a * v + rest * g * g
    m = a * m + rest * g
    variance = v - m * m
    variance = maximum(variance, variance - variance)
    u = mu * u + g / (sqrt(variance + inner) + outer)
    return u, v, m, u


def numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``alpha, 1 - alpha``, and ``eps`` inside or outside the root."""
    inside, eps = group["form"] == "paper", group["eps"]
    return group["alpha"], 1.0 - group["alpha"], eps if inside else 0.0, 0.0 if inside else eps


def numbers_momentum(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of :func:`numbers`, and the momentum."""
    return *numbers(t, group), group["momentum"]


RULES = {
    "plain": Rule(rmsprop, ("square_avg",), numbers),
    "momentum": Rule(rmsprop_momentum, ("square_avg", "momentum_buffer"), numbers_momentum),
    "centered": Rule(centered, ("square_avg", "grad_avg"), numbers),
    "centered momentum": Rule(centered_momentum, ("square_avg", "grad_avg", "momentum_buffer"), numbers_momentum),
}


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of its mean square.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-2 as in torch; the survey suggests 1e-3.
        alpha: decay of the averages, default 0.99 as in torch; the survey suggests 0.9.
        eps: added to the root; in the paper's form to what the root is taken of.
        weight_decay: strength; added to the gradient (L2).
        momentum: decay of a momentum of the steps, default 0: none is kept.
        centered: divide by the root of the variance instead.
        form: ``"torch"`` or ``"paper"``.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Hinton, Srivastava, Swersky, lecture 6e of "Neural networks for machine learning", 2012; centered: Graves,
    "Generating sequences with recurrent neural networks", 2013.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> RMSprop([p], lr=0.5, alpha=0.75).update()[p]
    tensor([-1.0000,  1.0000])
    """

    fractions = ("alpha", "momentum")
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        form: str = "torch",
        **options: Any,
    ) -> None:
        slots = {name: Slots(rule) for name, rule in RULES.items()}
        options = {"decoupled": False, "alpha": alpha, "eps": eps, "form": form, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, momentum=momentum, centered=centered, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        given = {**self.defaults, **param_group}
        name = f"{'centered ' if given['centered'] else ''}{'momentum' if given['momentum'] else ''}".strip()
        param_group.setdefault("slots", name or "plain")
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_form(group)
