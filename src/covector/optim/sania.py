"""SANIA: Polyak's step in a metric that training chooses: scale invariant where the metric is of squared gradients.

The composition of a metric of :mod:`covector.optim.diagonals` (or Newton's) and
:class:`~covector.optim.polyak.PolyakStep`::

    adagrad_sqr   B = sum g^2               adam_sqr   B = average of g^2
    adagrad       B = sqrt(sum g^2)         adam       B = sqrt(average of g^2)
    hutchinson    B = |diagonal of H|       newton     B = H        identity   B = 1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError
from covector.optim.diagonals import HutchinsonDiagonal, SquaredGradients, UnitDiagonal
from covector.optim.oasis import COVECTOR
from covector.optim.optimizer import Optimizer, Params
from covector.optim.polyak import Inverse, InverseDiagonal, NewtonInverse, PolyakStep
from covector.optim.slots import Slots

__all__ = ["SANIA"]

METRICS = ("adagrad_sqr", "adam_sqr", "adagrad", "adam", "hutchinson", "newton", "identity")


class SANIA(Optimizer):
    """Polyak's step in an adaptive metric: no learning rate, and no scale that a parameter must have.

    ``step`` needs the loss: ``step(closure)`` or ``step(loss=loss)``; with ``"hutchinson"`` and ``"newton"`` a closure.
    It is made for losses that every batch can bring to ``f_star``, such as interpolating models reach.

    Args:
        params: a module, parameters, or param groups.
        lr: the metric is divided by it; default 1.
        metric: ``"adagrad_sqr"``, ``"adam_sqr"`` (both scale invariant), ``"adagrad"``, ``"adam"``, ``"hutchinson"``,
            ``"newton"`` (by conjugate gradients), or ``"identity"``.
        f_star: the least loss of a batch.
        floor: least value of the metric; default 0.1 as published, which breaks the invariance: 1e-30 keeps it.
        beta2: decay of averages.
        probes: products that ``"hutchinson"`` averages before the first step.
        newton_steps: products of ``"newton"`` a step, at most.
        weight_decay: strength; added to the gradient (L2).
        seed: of what ``"hutchinson"`` draws.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: a value out of range; from ``step``, where the loss, or the closure, is not given.
        NonFiniteError: from ``step``, where the loss or a gradient is not finite. Nothing has changed then.

    Source: Abdukhakimov, Xiang, Kamzolov, Gower, Takac, "SANIA: Polyak-type optimization framework leads to scale
    invariant stochastic algorithms", 2023.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    >>> optimizer = SANIA([p], metric="newton")
    >>> _ = optimizer.step(lambda: p[0] ** 2 + 1000 * p[1] ** 2)
    >>> bool(p.abs().max() < 1e-6)  # one step solves a quadratic problem
    True
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        metric: str = "adagrad_sqr",
        f_star: float = 0.0,
        floor: float = 0.1,
        *,
        beta2: float = 0.999,
        probes: int = 100,
        newton_steps: int = 50,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.rule = PolyakStep(_inverse(metric, beta2, floor, probes, newton_steps, seed), f_star)
        slots = Slots(COVECTOR, maps=(self.rule,), scales=(self.rule,))
        super().__init__(params, slots, lr, weight_decay=weight_decay, **{"decoupled": False, **options})

    @property
    def step_size(self) -> float:
        """Lambda of the last step."""
        return self.rule.step

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["capturable"]:
            raise UnsupportedError("the step is a number of the loss, which a CUDA graph freezes; capturable=False")


def _inverse(metric: str, beta2: float, floor: float, probes: int, newton_steps: int, seed: int) -> Inverse:
    if metric not in METRICS:
        raise ArgumentError("metric", metric, "one of " + ", ".join(METRICS))
    if metric == "newton":
        return NewtonInverse(newton_steps)
    if metric == "hutchinson":
        return InverseDiagonal(HutchinsonDiagonal(beta2, floor, probes, seed))
    if metric == "identity":
        return InverseDiagonal(UnitDiagonal())
    beta = beta2 if metric.startswith("adam") else None
    return InverseDiagonal(SquaredGradients(beta, not metric.endswith("sqr"), floor))
