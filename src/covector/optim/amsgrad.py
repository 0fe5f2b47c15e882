"""AMSGrad and AdamNC: second moments that do not forget, so that step sizes do not grow.

With ``m = EMA(b1_t)(g)``, ``v = EMA(b2)(g^2)`` and ``V = max(V, v)``::

    AMSGrad, paper   alpha_t m / (sqrt(V) + eps)             b1_t = b1 b1_decay^(t-1), alpha_t = lr / sqrt(t)
    AMSGrad, torch   mh / (sqrt(V / (1 - b2^t)) + eps)       mh = m / (1 - b1^t)
    AdamNC           alpha_t m / (sqrt(v) + eps)             b2_t = 1 - 1/t: v is the mean of all squares

The paper's form has no bias corrections. Its steps fall with the root of t where ``sqrt_decay`` is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.adam import ADAM, adam
from covector.optim.checks import check_form
from covector.optim.operations import maximum, sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["AMSGRAD", "AMSGrad", "AdamNC", "amsgrad"]


def amsgrad(
    g: Any, m: Any, v: Any, top: Any, b1: Any, c1: Any, b2: Any, c2: Any, k1: Any, k2: Any, eps: Any
) -> tuple[Any, ...]:
    """``k1 m / (k2 sqrt(V) + eps)`` with ``V = max(V, v)``; Reddi, Kale, Kumar 2018, Algorithm 2."""
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    top = maximum(top, v)
    return k1 * m / (k2 * sqrt(top) + eps), m, v, top


def numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2, 1 - b2``, the factors of m and of the root, and ``eps``, in either form."""
    b1, b2 = group["betas"]
    if group["form"] == "torch":
        return b1, 1.0 - b1, b2, 1.0 - b2, 1.0 / (1.0 - b1**t), (1.0 - b2**t) ** -0.5, group["eps"]
    if group["second"] == "mean":
        b2 = 1.0 - 1.0 / t
    b1 = b1 * group["b1_decay"] ** (t - 1)
    rate = t**-0.5 if group["sqrt_decay"] else 1.0
    return b1, 1.0 - b1, b2, 1.0 - b2, rate, 1.0, group["eps"]


AMSGRAD = Rule(amsgrad, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), numbers)
ADAMNC = Rule(adam, ADAM.states, numbers)


class AMSGrad(Optimizer):
    """AMSGrad: Adam that divides by the largest mean square so far.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the two averages.
        eps: added to the root.
        weight_decay: strength; added to the gradient (L2).
        form: ``"torch"``: bias-corrected, as ``torch.optim.Adam(amsgrad=True)``; ``"paper"``: not.
        b1_decay: in the paper's form, the first decay is multiplied by it after each step (lambda in the paper).
        sqrt_decay: in the paper's form, divide the learning rate by the root of t.
        second: ``"ema"``, or ``"mean"`` in the paper's form: the mean of all squares, ``b2_t = 1 - 1/t``.
        options: as for :class:`~covector.optim.Optimizer`; the analysis asks for a bounded set:
            ``constraint=Box(-1, 1)``.

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018, Algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = AMSGrad([p], lr=1.0, betas=(0.0, 0.0), form="paper")
    >>> for slope in (4.0, 1.0):
    ...     p.grad = torch.tensor([slope])
    ...     print(optimizer.update()[p].item())
    -1.0
    -0.25
    """

    rule = AMSGRAD

    fractions = ("betas",)
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        form: str = "torch",
        b1_decay: float = 1.0,
        sqrt_decay: bool = False,
        second: str = "ema",
        **options: Any,
    ) -> None:
        options = {"decoupled": False, "betas": betas, "eps": eps, "form": form, "b1_decay": b1_decay, **options}
        options |= {"sqrt_decay": sqrt_decay, "second": second}
        super().__init__(params, Slots(self.rule), lr, weight_decay=weight_decay, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_form(group)
        if not 0.0 < group["b1_decay"] <= 1.0:
            raise ArgumentError("b1_decay", group["b1_decay"], "a number in (0, 1]")
        if group["second"] not in ("ema", "mean"):
            raise ArgumentError("second", group["second"], "'ema' or 'mean'")
        only = {"b1_decay": 1.0, "sqrt_decay": False, "second": "ema"}
        for name, value in only.items():
            if group["form"] == "torch" and group[name] != value:
                raise ArgumentError(name, group[name], f"{value!r} with form='torch'; the paper's form has it")


class AdamNC(AMSGrad):
    """AdamNC: the mean of all squared gradients as second moment; Adagrad with momentum, for ``lr / sqrt(t)``.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-2; divided by the root of t.
        b1: decay of the mean gradient.
        eps: added to the root.
        weight_decay: strength; added to the gradient (L2).
        b1_decay: b1 is multiplied by it after each step.
        sqrt_decay: divide the learning rate by the root of t, as in the analysis.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018, Algorithm 3 and Corollary 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = AdamNC([p], lr=1.0, b1=0.0)
    >>> for _ in range(2):
    ...     p.grad = torch.tensor([3.0])
    ...     print(round(optimizer.update()[p].item(), 4))
    -1.0
    -0.7071
    """

    rule = ADAMNC

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        b1: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        b1_decay: float = 1.0,
        sqrt_decay: bool = True,
        **options: Any,
    ) -> None:
        options = {"second": "mean", "form": "paper", **options}
        super().__init__(params, lr, (b1, 0.0), eps, weight_decay, b1_decay=b1_decay, sqrt_decay=sqrt_decay, **options)
