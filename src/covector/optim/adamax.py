"""AdaMax: Adam with the maximum of past gradients in place of the root of their mean square.

With ``m = EMA(b1)(g)``::

    torch   u <- max(b2 u, |g| + eps)      p <- p - lr / (1 - b1^t) m / u
    paper   u <- max(b2 u, |g|)

It is the limit, as n grows, of Adam with ``v = EMA(b2^n)(|g|^n)`` and the n-th root in place of the square root.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.checks import check_form
from covector.optim.operations import maximum
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["ADAMAX", "AdaMax", "adamax"]

# a coordinate that never had a gradient shall not divide zero by zero: the least normal number of float32, doubled
_TINY = 2.4e-38


def adamax(g: Any, m: Any, u: Any, b1: Any, c1: Any, b2: Any, k1: Any, eps: Any, tiny: Any) -> tuple[Any, ...]:
    """``k1 m / u`` with ``u = max(b2 u, |g| + eps)``; Kingma and Ba 2015, Algorithm 2."""
    m = b1 * m + c1 * g
    u = maximum(b2 * u, abs(g) + eps)
    return k1 * m / (u + tiny), m, u


def adamax_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2``, the bias correction of m, and ``eps``."""
    b1, b2 = group["betas"]
    paper = group["form"] == "paper"
    return b1, 1.0 - b1, b2, 1.0 / (1.0 - b1**t), 0.0 if paper else group["eps"], _TINY if paper else 0.0


ADAMAX = Rule(adamax, ("exp_avg", "exp_inf"), adamax_numbers)


class AdaMax(Optimizer):
    """AdaMax: Adam in the infinity norm; a step is at most about lr, whatever the gradients.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 2e-3.
        betas: decay of the average and of the maximum.
        eps: added to the absolute gradient; not used in the paper's form.
        weight_decay: strength; added to the gradient (L2).
        form: ``"torch"`` or ``"paper"``.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, Algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> AdaMax([p], lr=0.5).update()[p]
    tensor([-0.5000,  0.5000])
    """

    fractions = ("betas",)
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        form: str = "torch",
        **options: Any,
    ) -> None:
        options = {"decoupled": False, "betas": betas, "eps": eps, "form": form, **options}
        super().__init__(params, Slots(ADAMAX), lr, weight_decay=weight_decay, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_form(group)
