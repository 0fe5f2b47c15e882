"""Steps of equal length in every coordinate: Signum and Lion.

::

    Signum   m <- EMA(mu)(g)                      p <- p - lr sign(m)
    Lion     d = sign(b1 m + (1 - b1) g)          m <- EMA(b2)(g)          p <- p - lr d
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.operations import sign
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["LION", "SIGNUM", "Lion", "Signum", "lion", "signum"]


def signum(g: Any, m: Any, mu: Any, rest: Any) -> tuple[Any, ...]:
    """The sign of the mean gradient; Bernstein et al. 2018, Algorithm 2."""
    m = mu * m + rest * g
    return sign(m), m


def lion(g: Any, m: Any, b1: Any, c1: Any, b2: Any, c2: Any) -> tuple[Any, ...]:
    """The sign of a mixture of the mean and the gradient; Chen et al. 2023, Algorithm 2."""
    return sign(b1 * m + c1 * g), b2 * m + c2 * g


def signum_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``mu, 1 - mu``."""
    return group["momentum"], 1.0 - group["momentum"]


def lion_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2, 1 - b2``."""
    b1, b2 = group["betas"]
    return b1, 1.0 - b1, b2, 1.0 - b2


SIGNUM = Rule(signum, ("exp_avg",), signum_numbers)
LION = Rule(lion, ("exp_avg",), lion_numbers)


class Signum(Optimizer):
    """Signum: the sign of the mean gradient.

    Args:
        params: a module, parameters, or param groups.
        lr: length of the step in every coordinate, default 1e-3.
        momentum: decay of the mean; 0 is sign descent.
        weight_decay: strength; decoupled.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD: compressed optimisation for non-convex problems",
    2018, Algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(3))
    >>> p.grad = torch.tensor([3.0, -0.1, 0.0])
    >>> Signum([p], lr=0.5).update()[p]
    tensor([-0.5000,  0.5000,  0.0000])
    """

    fractions = ("momentum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(params, Slots(SIGNUM), lr, weight_decay=weight_decay, momentum=momentum, **options)


class Lion(Optimizer):
    """Lion: the sign of a mixture of the mean gradient and the newest.

    Args:
        params: a module, parameters, or param groups.
        lr: length of the step in every coordinate, default 1e-4.
        betas: weight of the mean within the mixture, and decay of the mean.
        weight_decay: strength; decoupled.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023, Algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> Lion([p], lr=0.5).update()[p]
    tensor([-0.5000,  0.5000])
    """

    fractions = ("betas",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(params, Slots(LION), lr, weight_decay=weight_decay, betas=betas, **options)
