"""NAdam: Adam whose momentum is Nesterov's.

With ``m = EMA(b1)(g)``, ``v = EMA(b2)(g^2)`` and ``D = sqrt(v / (1 - b2^t)) + eps``::

    paper   (b1 m + (1 - b1) g) / (1 - b1^t) / D
    torch   (mu_{t+1} / (1 - M_{t+1}) m + (1 - mu_t) / (1 - M_t) g) / D

where ``mu_t = b1 (1 - 0.96^(t psi) / 2)`` warms the momentum up, and ``M_t`` is the product of the first t of them.
torch's form does not contain the paper's: without warm-up, ``psi = 0``, its mu is half of b1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from covector.optim.checks import check_form
from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["NADAM", "NAdam", "momentum_product", "nadam"]


def nadam(
    g: Any, m: Any, v: Any, b1: Any, c1: Any, b2: Any, c2: Any, km: Any, kg: Any, k2: Any, eps: Any
) -> tuple[Any, ...]:
    """``(km m + kg g) / (k2 sqrt(v) + eps)``; Dozat 2016, Algorithm 8."""
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    return (km * m + kg * g) / (k2 * sqrt(v) + eps), m, v


def momentum_product(t: Any, b1: float, psi: float) -> Any:
    """``prod_{i=1..t} b1 (1 - 0.96^(i psi) / 2)``, in closed form, so that no product has to be kept.

    The logarithm of each factor is a power series in 0.96^(i psi), whose powers sum up geometrically over i.

    >>> round(momentum_product(2, 0.9, 0.0), 12)
    0.2025
    """
    log_q = psi * math.log(0.96)
    total = t * 0.0
    for k in range(1, 60):
        # sum of q^(k i) over i = 1..t
        power = t if not log_q else math.exp(k * log_q) * _expm1(k * log_q * t) / math.expm1(k * log_q)
        total = total - 0.5**k / k * power
    return b1**t * math.e**total


def _expm1(x: Any) -> Any:
    return torch.expm1(x) if isinstance(x, Tensor) else math.expm1(x)


def nadam_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2, 1 - b2``, the weights of m and of g, the correction of v, and ``eps``."""
    (b1, b2), psi = group["betas"], group["momentum_decay"]
    if group["form"] == "paper":
        correction = 1.0 / (1.0 - b1**t)
        of_m, of_g = b1 * correction, (1.0 - b1) * correction
    else:
        now, after = b1 * (1.0 - 0.5 * 0.96 ** (t * psi)), b1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * psi))
        product = momentum_product(t, b1, psi)
        of_m, of_g = after / (1.0 - product * after), (1.0 - now) / (1.0 - product)
    return b1, 1.0 - b1, b2, 1.0 - b2, of_m, of_g, (1.0 - b2**t) ** -0.5, group["eps"]


NADAM = Rule(nadam, ("exp_avg", "exp_avg_sq"), nadam_numbers)


class NAdam(Optimizer):
    """NAdam: Adam that applies its momentum as if one step ahead.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 2e-3.
        betas: decay of the two averages.
        eps: added to the root.
        weight_decay: strength; added to the gradient (L2).
        momentum_decay: speed of the momentum's warm-up in torch's form.
        form: ``"torch"`` or ``"paper"`` (constant b1, as in Ruder's survey).
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016; the survey's form: Ruder 2016, equation 41.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> NAdam([p], lr=0.5, form="paper").update()[p]
    tensor([-0.9500,  0.9500])
    """

    fractions = ("betas",)
    nonnegative = ("eps", "momentum_decay")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        form: str = "torch",
        **options: Any,
    ) -> None:
        options = {"decoupled": False, "betas": betas, "eps": eps, "form": form, **options}
        super().__init__(params, Slots(NADAM), lr, weight_decay=weight_decay, momentum_decay=momentum_decay, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_form(group)
