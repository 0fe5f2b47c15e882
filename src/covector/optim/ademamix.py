"""AdEMAMix: Adam with a second, far slower average of the gradient beside the first.

With ``m1 = EMA(b1)(g)``, ``m2 = EMA(b3_t)(g)``, ``v = EMA(b2)(g^2)``::

    (m1 / (1 - b1^t) + alpha_t m2) / (sqrt(v / (1 - b2^t)) + eps)

The slow average remembers thousands of steps. It is not bias-corrected, and both its weight alpha and its memory warm
up: alpha linearly, and b3 such that its half-life grows linearly from that of b1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["ADEMAMIX", "AdEMAMix", "ademamix", "slow_decay"]


def ademamix(
    g: Any, m1: Any, m2: Any, v: Any,
    b1: Any, c1: Any, b3: Any, c3: Any, b2: Any, c2: Any, k1: Any, alpha: Any, k2: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """``(k1 m1 + alpha m2) / (k2 sqrt(v) + eps)``; Pagliardini, Ablin, Grangier 2024, Algorithm 1."""
    m1 = b1 * m1 + c1 * g
    m2 = b3 * m2 + c3 * g
    v = b2 * v + c2 * g * g
    return (k1 * m1 + alpha * m2) / (k2 * sqrt(v) + eps), m1, m2, v


def ademamix_slow(
    g: Any, m2: Any, v: Any, b3: Any, c3: Any, b2: Any, c2: Any, alpha: Any, k2: Any, eps: Any
) -> tuple[Any, ...]:
    """With ``b1 = 0``: the gradient itself is the fast average, and needs no memory."""
    m2 = b3 * m2 + c3 * g
    v = b2 * v + c2 * g * g
    return (g + alpha * m2) / (k2 * sqrt(v) + eps), m2, v


def progress(t: Any, warmup: int | None) -> Any:
    """``min(t / warmup, 1)``, for a number or a tensor."""
    if warmup is None:
        return 1.0
    return (t / warmup).clamp(max=1.0) if isinstance(t, Tensor) else min(t / warmup, 1.0)


def slow_decay(share: Any, b1: float, b3: float) -> Any:
    """The decay whose half-life lies at a share of the way from that of b1 to that of b3.

    >>> round(slow_decay(0.5, 0.5, 0.5**0.25), 12) == round(0.5**0.4, 12)  # half-lives 1 and 4: 2.5
    True
    """
    fast, slow = math.log(max(b1, 1e-8)), math.log(b3)
    exponent = fast * slow / ((1.0 - share) * slow + share * fast)
    return torch.exp(exponent) if isinstance(exponent, Tensor) else math.exp(exponent)


def slow_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b3, 1 - b3, b2, 1 - b2, alpha``, the correction of v, and ``eps``."""
    b1, b2, b3 = group["betas"]
    warmup = group["warmup_steps"]
    if b3 == 0.0:
        now: Any = 0.0
    else:
        now = b3 if warmup is None else slow_decay(progress(t, warmup), b1, b3)
    alpha = group["alpha"] * progress(t, warmup)
    return now, 1.0 - now, b2, 1.0 - b2, alpha, (1.0 - b2**t) ** -0.5, group["eps"]


def numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``b1, 1 - b1, b3, 1 - b3, b2, 1 - b2``, the correction of m1, alpha, the correction of v, and ``eps``."""
    b1 = group["betas"][0]
    b3, c3, b2, c2, alpha, k2, eps = slow_numbers(t, group)
    return b1, 1.0 - b1, b3, c3, b2, c2, 1.0 / (1.0 - b1**t), alpha, k2, eps


ADEMAMIX = Rule(ademamix, ("exp_avg", "exp_avg_slow", "exp_avg_sq"), numbers)
ADEMAMIX_SLOW = Rule(ademamix_slow, ("exp_avg_slow", "exp_avg_sq"), slow_numbers)


class AdEMAMix(Optimizer):
    """AdEMAMix: Adam whose numerator mixes a fast and a very slow average of the gradient.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the fast average, of the mean square, and of the slow average. With 0 for the first, the
            gradient takes the fast average's place and two tensors a parameter are kept instead of three.
        alpha: weight of the slow average; the paper uses 5 to 8.
        warmup_steps: over which alpha and the slow decay grow; the paper takes the whole training. Default none,
            which is rough in the first steps.
        eps: added to the root.
        weight_decay: strength; decoupled.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: the slow average is faster than the fast one, or another hyperparameter is out of range.

    Source: Pagliardini, Ablin, Grangier, "The AdEMAMix optimizer: better, faster, older", 2024, Algorithm 1.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> AdEMAMix([p], lr=0.5, betas=(0.0, 0.999, 0.5), alpha=2.0).update()[p]
    tensor([-1.0000,  1.0000])
    """

    fractions = ("betas",)
    nonnegative = ("alpha", "eps")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        warmup_steps: int | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        slots = {"default": Slots(ADEMAMIX), "slow": Slots(ADEMAMIX_SLOW)}
        options = {"betas": betas, "alpha": alpha, "warmup_steps": warmup_steps, "eps": eps, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        betas = param_group.get("betas", self.defaults["betas"])
        param_group.setdefault("slots", "default" if betas[0] else "slow")
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if len(group["betas"]) != 3:
            raise ArgumentError("betas", group["betas"], "three numbers")
        if group["betas"][2] < group["betas"][0]:
            raise ArgumentError("betas", group["betas"], "a third decay of at least the first")
        warmup = group["warmup_steps"]
        if warmup is not None and not (isinstance(warmup, int) and warmup >= 1):
            raise ArgumentError("warmup_steps", warmup, "a whole number of at least 1, or None")
