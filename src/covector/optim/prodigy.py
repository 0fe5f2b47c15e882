"""Prodigy: Adam that finds its own learning rate, the distance ``d`` from the start to a solution.

With ``d_0`` tiny, ``w_0`` the start, and sums that decay by ``b3``::

    r <- b3 r + lr d^2 <g, w_0 - w> / d_0,   s <- b3 s + lr d^2 g / d_0,   d <- max(d, r / ||s||_1)
    m <- b1 m + (1 - b1) d g,   v <- b2 v + (1 - b2) d^2 g^2,   w <- w - lr d m / (sqrt(v) + d eps)

Without averages (``betas=(0, 0), beta3=1``) this is sign descent whose step grows until it escapes the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from covector.optim.adam import adam
from covector.optim.advance import state_dtype
from covector.optim.checks import check_nonnegative
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Bucket, Slots

__all__ = ["Distance", "Prodigy"]


def prodigy_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Adam's numbers for gradients that count by ``d``."""
    (b1, b2), d = group["betas"], group["d"]
    return b1, (1 - b1) * d, b2, (1 - b2) * d * d, d * correction(t, group), 1.0, d * group["eps"]


def correction(t: Any, group: Mapping[str, Any]) -> Any:
    """Adam's correction of the bias of both averages, if asked for."""
    b1, b2 = group["betas"]
    return (1 - b2**t) ** 0.5 / (1 - b1**t) if group["bias_correction"] else 1.0


class Distance:
    """Slot 5: estimates the distance to a solution once a step; group entry ``d`` is what the step uses.

    Args:
        growth: ``d`` grows by at most this factor a step.

    >>> Distance(growth=2.0).growth
    2.0
    """

    needs_directions = False

    def __init__(self, growth: float) -> None:
        self.growth = growth

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Take in the gradients; the estimate they give counts from the next step on."""
        if not buckets:
            return
        shared, first = buckets[0].shared, buckets[0].group
        d0, beta3 = first["d0"], first["beta3"]
        beta3 = first["betas"][1] ** 0.5 if beta3 is None else beta3
        d = shared.setdefault("d", d0)
        numerator, length = beta3 * shared.get("numerator", 0.0), 0.0
        for bucket in buckets:
            bucket.group["d"] = d
            weight = d / d0 * d * float(bucket.group["lr"]) * float(correction(bucket.t, bucket.group))
            gain, part = _take_in(bucket, weight, beta3)
            numerator, length = numerator + gain, length + part
        shared["numerator"] = numerator
        if length > 0.0:
            found = first["d_coef"] * numerator / length
            shared["best"] = max(shared.get("best", d0), found)
            start = max(d, found) if d == d0 else d
            shared["d"] = max(d, min(shared["best"], start * self.growth))

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """Ones: the rule's numbers hold ``d`` already."""
        return [1.0] * len(bucket.params)


def _take_in(bucket: Bucket, weight: float, beta3: float) -> tuple[float, float]:
    """``weight <g, w_0 - w>``, and the 1-norm of the weighted sum of gradients after it took in ``g``."""
    kind = state_dtype(bucket.params[0].dtype)
    decay = 0.0 if bucket.group["decoupled"] else bucket.group["weight_decay"]
    gain, length = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for param, grad, sign, state in zip(bucket.params, bucket.grads, bucket.signs, bucket.states, strict=True):
        p, g = param.to(kind), grad.to(kind) * sign
        g = g + decay * p if decay else g
        if "start" not in state:
            state["start"], state["gradient_sum"] = p.clone(), torch.zeros_like(p)
        gain += weight * (g * (state["start"] - p)).sum(dtype=torch.float64).cpu()
        total = state["gradient_sum"].mul_(beta3).add_(g, alpha=weight)
        length += total.abs().sum(dtype=torch.float64).cpu()
    return float(gain), float(length)


PRODIGY = Rule(adam, ("exp_avg", "exp_avg_sq"), prodigy_numbers)


class Prodigy(Optimizer):
    """Prodigy: Adam without a learning rate to tune.

    Args:
        params: a module, parameters, or param groups.
        lr: a factor of the learning rate that is found, default 1; schedules act on it.
        betas: decay of the averages of gradients and of their squares.
        beta3: decay of the sums that estimate the distance; default ``sqrt(betas[1])``.
        eps: added to the root.
        weight_decay: strength; decoupled, in units of the learning rate that is found.
        d0: first estimate of the distance, smaller than any right one.
        d_coef: factor of all further estimates.
        growth: the estimate grows by at most this factor a step.
        bias_correction: correct the averages as Adam does.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Mishchenko and Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", 2023, Algorithm 4.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = Prodigy([p])
    >>> for _ in range(100):
    ...     p.grad = p.detach().sign()
    ...     optimizer.step()
    >>> optimizer.param_groups[0]["d"] > 0.1
    True
    """

    fractions = ("betas",)
    positive = ("d0", "d_coef")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        beta3: float | None = None,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth: float = float("inf"),
        bias_correction: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            Slots(PRODIGY, scales=(Distance(growth),)),
            lr,
            weight_decay=weight_decay,
            betas=betas,
            eps=eps,
            beta3=beta3,
            d0=d0,
            d=d0,
            d_coef=d_coef,
            bias_correction=bias_correction,
            **options,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_nonnegative(group, "eps", *([] if group["beta3"] is None else ["beta3"]))

    def _move(self, bucket: Bucket, out: list[Tensor]) -> None:
        if bucket.group["decoupled"]:
            scaled = bucket.group["weight_decay"] * bucket.group["d"]
            bucket = replace(bucket, group={**bucket.group, "weight_decay": scaled})
        super()._move(bucket, out)
