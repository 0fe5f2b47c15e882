"""Slot 4: grafting, the length of one optimizer's step with the direction of another's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.adagrad import adagrad
from covector.optim.adam import adam, adam_numbers
from covector.optim.advance import Factors, advance, state_dtype
from covector.optim.ema import corrected_numbers
from covector.optim.rule import Rule
from covector.optim.sgd import heavy_ball, plain
from covector.optim.slots import Bucket

__all__ = ["GRAFTS", "Graft"]

PASS: Factors = (1.0, 0.0, 0.0, -1.0)

# the diagonal methods whose lengths are taken, under state names of their own
GRAFTS: dict[str, Rule] = {
    "sgd": Rule(heavy_ball, ("graft_exp_avg",), corrected_numbers),
    "adam": Rule(adam, ("graft_exp_avg", "graft_exp_avg_sq"), adam_numbers),
    "adagrad": Rule(adagrad, ("graft_sum",), lambda t, group: (1.0, 0.0, group["eps"])),
    "rmsprop": Rule(
        adam,
        ("graft_exp_avg", "graft_exp_avg_sq"),
        lambda t, group: adam_numbers(t, {**group, "betas": (0.0, group["betas"][1])}),
    ),
    "none": Rule(plain, (), lambda t, group: ()),
}


class Graft:
    """``S ||A|| / ||S||`` of a direction ``S``, with ``A`` the direction of another method; ``A`` before the start.

    The other method sees the same gradients and keeps its own states, so that ``||A||`` is the norm of its
    :meth:`~covector.optim.Optimizer.update` at the same learning rate.

    Args:
        method: ``"sgd"``, ``"adam"``, ``"adagrad"``, ``"rmsprop"``, or ``"none"``.
        start: the step from which on ``S`` gives the direction.

    Raises:
        ArgumentError: no such method.

    >>> bucket = Bucket({"eps": 0.0}, None, [torch.zeros(2)], [], [{}], 1)
    >>> Graft("adagrad", start=1)(bucket, [torch.tensor([3.0, 4.0])], [torch.tensor([7.0, 0.1])])
    [tensor([0.8485, 1.1314])]
    """

    def __init__(self, method: str, start: int) -> None:
        if method not in GRAFTS:
            raise ArgumentError("graft", method, "one of " + ", ".join(GRAFTS))
        self.method, self.start = method, start

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        ready = int(bucket.t) >= self.start
        if self.method == "none":
            return directions
        magnitudes = self._magnitudes(bucket, grads)
        if not ready:
            return magnitudes
        lengths: list[Any] = list(torch._foreach_norm(magnitudes))
        own: list[Any] = list(torch._foreach_norm(directions))
        return [s * (a / (b + 1e-16)) for s, a, b in zip(directions, lengths, own, strict=True)]

    def _magnitudes(self, bucket: Bucket, grads: list[Tensor]) -> list[Tensor]:
        rule = GRAFTS[self.method]
        for state, g in zip(bucket.states, grads, strict=True):
            for name in rule.states:
                state.setdefault(name, torch.zeros_like(g, dtype=state_dtype(g.dtype)))
        states = [[state[name] for state in bucket.states] for name in rule.states]
        out = [torch.empty_like(g) for g in grads]
        advance(rule, grads, grads, out, states, rule.coefficients(bucket.t, bucket.group), [PASS] * len(grads))
        return out
