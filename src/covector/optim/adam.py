"""Adam and its relatives: moments of the gradient and of its square.

With ``m = EMA(b1)(g)``, ``v = EMA(b2)(g^2)``, bias-corrected ``mh = m / (1 - b1^t)``, ``vh = v / (1 - b2^t)``::

    Adam       mh / (sqrt(vh) + eps)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["ADAM", "Adam", "AdamW", "adam"]


def adam(g: Any, m: Any, v: Any, b1: Any, c1: Any, b2: Any, c2: Any, k1: Any, k2: Any, eps: Any) -> tuple[Any, ...]:
    """``mh / (sqrt(vh) + eps)``; Kingma and Ba 2015, Algorithm 1."""
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    return k1 * m / (k2 * sqrt(v) + eps), m, v


def adam_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2, 1 - b2``, the bias corrections, and ``eps``."""
    b1, b2 = group["betas"]
    return b1, 1 - b1, b2, 1 - b2, 1 / (1 - b1**t), (1 - b2**t) ** -0.5, group["eps"]


ADAM = Rule(adam, ("exp_avg", "exp_avg_sq"), adam_numbers)


class Adam(Optimizer):
    """Adam: the mean gradient over the root of the mean square.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the two averages.
        eps: added to the root.
        weight_decay: strength; added to the gradient (L2).
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, Algorithm 1.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = Adam(model, lr=1e-2)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> optimizer.step()
    """

    fractions = ("betas",)
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        options = {"decoupled": False, **options}
        super().__init__(params, Slots(ADAM), lr, weight_decay=weight_decay, betas=betas, eps=eps, **options)


class AdamW(Adam):
    """Adam with decoupled weight decay.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the two averages.
        eps: added to the root.
        weight_decay: strength; ``p -= lr * weight_decay * p``, default 0.01.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, Algorithm 2.

    >>> import torch
    >>> AdamW([torch.nn.Parameter(torch.zeros(2))]).defaults["weight_decay"]
    0.01
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, **{"decoupled": True, **options})
