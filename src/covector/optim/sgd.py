"""Stochastic gradient descent, with momentum of Polyak or Nesterov.

With momentum mu, in torch's form and in the form of the papers::

    torch   u <- mu u + (1 - dampening) g          p <- p - lr u             Nesterov: p <- p - lr (g + mu u)
    paper   u <- mu u + lr g                       p <- p - u                Nesterov: g is taken at p - mu u

They differ once the learning rate changes: torch's rescales the momentum gathered so far, the paper's does not. In
both forms of Nesterov's method the parameters are the look-ahead point ``p - mu u``, where the gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.checks import check_form
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["HEAVY_BALL", "SGD", "heavy_ball"]


def plain(g: Any) -> tuple[Any, ...]:
    """The gradient itself."""
    return (g,)


def heavy_ball(g: Any, u: Any, mu: Any, gain: Any, own: Any, kept: Any) -> tuple[Any, ...]:
    """``u = mu u + gain g``; the direction is ``own g + kept u``; Polyak 1964, Nesterov 1983."""
    u = mu * u + gain * g
    return own * g + kept * u, u


def torch_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``mu``, the weight of the gradient (1 in the first step), and the mixture of the direction."""
    mu, nesterov = group["momentum"], group["nesterov"]
    return mu, 1.0 - group["dampening"] * (t > 1), float(nesterov), mu if nesterov else 1.0


def paper_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``mu``, and the learning rate inside the momentum."""
    mu, lr, nesterov = group["momentum"], group["lr"], group["nesterov"]
    return mu, lr, lr if nesterov else 0.0, mu if nesterov else 1.0


PLAIN = Rule(plain, (), lambda t, group: ())
HEAVY_BALL = Rule(heavy_ball, ("momentum_buffer",), torch_numbers)
HEAVY_BALL_PAPER = Rule(heavy_ball, ("momentum_buffer",), paper_numbers, rated=True)


class SGD(Optimizer):
    """Stochastic gradient descent.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        momentum: decay of the momentum, default 0: none is kept.
        dampening: the gradient enters the momentum with ``1 - dampening``, as in ``torch.optim.SGD``; torch's form
            only.
        nesterov: the gradient is that of the look-ahead point.
        weight_decay: strength; added to the gradient (L2).
        form: ``"torch"``, or ``"paper"``: the learning rate inside the momentum.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Polyak 1964; Nesterov 1983; as in Ruder, "An overview of gradient descent optimization algorithms", 2016.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SGD([p], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     p.grad = torch.ones(1)
    ...     optimizer.step()
    >>> p
    Parameter containing:
    tensor([-0.2500], requires_grad=True)
    """

    fractions = ("momentum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        form: str = "torch",
        **options: Any,
    ) -> None:
        slots = {
            name: Slots(rule) for name, rule in [("plain", PLAIN), ("torch", HEAVY_BALL), ("paper", HEAVY_BALL_PAPER)]
        }
        options = {"decoupled": False, "dampening": dampening, "nesterov": nesterov, "form": form, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, momentum=momentum, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        given = {**self.defaults, **param_group}
        param_group.setdefault("slots", given["form"] if given["momentum"] else "plain")
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        check_form(group)
        super().check(group)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ArgumentError("nesterov", True, "momentum above 0 and dampening=0 with it")
        if group["form"] == "paper" and group["dampening"]:
            raise ArgumentError("dampening", group["dampening"], "0 with form='paper'")
