"""Adagrad: the gradient over the root of the sum of its squares.

``G`` is the sum of squared gradients; learning rates fall as it grows, fastest for the coordinates that move most::

    torch   g / (sqrt(G) + eps) / (1 + (t - 1) lr_decay)
    paper   g / sqrt(G + eps)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.checks import check_form
from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["ADAGRAD", "Adagrad", "adagrad"]


def adagrad(g: Any, total: Any, rate: Any, inner: Any, outer: Any) -> tuple[Any, ...]:
    """``rate g / (sqrt(G + inner) + outer)``; Duchi, Hazan, Singer 2011, with a diagonal matrix."""
    total = total + g * g
    return rate * g / (sqrt(total + inner) + outer), total


def adagrad_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """The decay of the learning rate, and ``eps`` inside or outside the root."""
    inside = group["form"] == "paper"
    eps = group["eps"]
    return 1.0 / (1.0 + (t - 1) * group["lr_decay"]), eps if inside else 0.0, 0.0 if inside else eps


ADAGRAD = Rule(adagrad, ("sum",), adagrad_numbers, {"sum": "initial_accumulator_value"})


class Adagrad(Optimizer):
    """Adagrad: a learning rate for each coordinate that falls with the sum of its squared gradients.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-2.
        lr_decay: the learning rate is divided by ``1 + (t - 1) * lr_decay``.
        weight_decay: strength; added to the gradient (L2).
        initial_accumulator_value: the sum's value at the start.
        eps: added to the root; in the paper's form to what the root is taken of, where 1e-8 is usual.
        form: ``"torch"`` or ``"paper"``.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, Figure 1 with diagonal matrices.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> Adagrad([p], lr=0.5).update()[p]
    tensor([-0.5000,  0.5000])
    """

    nonnegative = ("lr_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        form: str = "torch",
        **options: Any,
    ) -> None:
        options = {"decoupled": False, "lr_decay": lr_decay, "eps": eps, "form": form, **options}
        options["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, Slots(ADAGRAD), lr, weight_decay=weight_decay, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_form(group)
