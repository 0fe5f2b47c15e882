"""diffGrad: Adam with friction where the gradient hardly changes.

With ``m = EMA(b1)(g)``, ``v = EMA(b2)(g^2)``::

    xi = sigmoid(|g_prev - g|)
    p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) * xi m / (sqrt(v) + eps)

xi lies in [1/2, 1). Gradients of real networks change by far less than 1, and xi is then close to 1/2: Adam with half
the learning rate. ``scale="relative"`` measures the change against the root mean square instead (ours, not published).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.operations import sigmoid, sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["DIFFGRAD", "DiffGrad", "diffgrad"]


def diffgrad(
    g: Any, m: Any, v: Any, last: Any, b1: Any, c1: Any, b2: Any, c2: Any, k: Any, eps: Any
) -> tuple[Any, ...]:
    """``k xi m / (sqrt(v) + eps)``; Dubey et al. 2019, equations 8 to 11, in their corrected code."""
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    xi = sigmoid(abs(last - g))
    return k * xi * m / (sqrt(v) + eps), m, v, g


def diffgrad_relative(
    g: Any, m: Any, v: Any, last: Any, b1: Any, c1: Any, b2: Any, c2: Any, k: Any, eps: Any, k2: Any
) -> tuple[Any, ...]:
    """The change of the gradient over its root mean square in place of the change."""
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    root = sqrt(v) + eps
    xi = sigmoid(abs(last - g) / (k2 * root))
    return k * xi * m / root, m, v, g


def numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b2, 1 - b2``, both corrections in one factor, and ``eps``."""
    b1, b2 = group["betas"]
    return b1, 1.0 - b1, b2, 1.0 - b2, (1.0 - b2**t) ** 0.5 / (1.0 - b1**t), group["eps"]


def relative_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of :func:`numbers`, and the correction of v alone."""
    return *numbers(t, group), (1.0 - group["betas"][1] ** t) ** -0.5


STATES = ("exp_avg", "exp_avg_sq", "previous_grad")
DIFFGRAD = Rule(diffgrad, STATES, numbers)
DIFFGRAD_RELATIVE = Rule(diffgrad_relative, STATES, relative_numbers)


class DiffGrad(Optimizer):
    """diffGrad: Adam times the sigmoid of the gradient's change.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3; expect to need up to twice Adam's.
        betas: decay of the two averages.
        eps: added to the root before its bias is corrected, as published.
        weight_decay: strength; added to the gradient (L2).
        scale: ``"absolute"`` as published, or ``"relative"``: the change over the root mean square.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri, "diffGrad: an optimization method for convolutional
    neural networks", 2019.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([100.0, 1e-4])
    >>> DiffGrad([p], lr=1.0, eps=0.0).update()[p]
    tensor([-1.0000, -0.5000])
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
        scale: str = "absolute",
        **options: Any,
    ) -> None:
        slots = {"absolute": Slots(DIFFGRAD), "relative": Slots(DIFFGRAD_RELATIVE)}
        options = {"decoupled": False, "betas": betas, "eps": eps, "scale": scale, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        param_group.setdefault("slots", param_group.get("scale", self.defaults["scale"]))
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        if group["scale"] not in self.slots:
            raise ArgumentError("scale", group["scale"], "'absolute' or 'relative'")
        super().check(group)
