"""Diagonal metrics B of a whole model, by which gradients are divided: of squared gradients, or of the Hessian.

A metric keeps its numbers in the states of the parameters, and is advanced once a step, before a step size is chosen in
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.advance import state_dtype
from covector.optim.fit_noise import FitNoise
from covector.optim.slots import Bucket
from covector.random import check_seed

__all__ = ["DiagonalMetric", "HutchinsonDiagonal", "SquaredGradients", "UnitDiagonal", "covectors"]


def covectors(bucket: Bucket) -> list[Tensor]:
    """Signed gradients with L2 decay, in the precision of states; computed once a step.

    >>> p = torch.ones(2)
    >>> bucket = Bucket({"decoupled": False, "weight_decay": 0.5}, None, [p], [torch.ones(2)], [{}], 1, [-1.0])
    >>> covectors(bucket)
    [tensor([-0.5000, -0.5000])]
    """
    if "covectors" not in bucket.scratch:
        decay, kind = l2_of(bucket), state_dtype(bucket.params[0].dtype)
        bucket.scratch["covectors"] = [
            g.to(kind) * sign + decay * p.to(kind) if decay else g.to(kind) * sign
            for p, g, sign in zip(bucket.params, bucket.grads, bucket.signs, strict=True)
        ]
    found: list[Tensor] = bucket.scratch["covectors"]
    return found


def l2_of(bucket: Bucket) -> float:
    """Strength of the L2 decay of a bucket; 0 where its decay is decoupled."""
    return 0.0 if bucket.group["decoupled"] else float(bucket.group["weight_decay"])


def products(buckets: Sequence[Bucket], vectors: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """The Hessian of the signed loss with L2 decay, times a vector given by bucket."""
    evaluation = buckets[0].evaluation
    if evaluation is None:
        raise ArgumentError("closure", None, "a function that returns the loss: step(closure)")
    given = {
        p: v for bucket, own in zip(buckets, vectors, strict=True) for p, v in zip(bucket.params, own, strict=True)
    }
    asked = [given[p] if p in given else torch.zeros_like(p) for p in evaluation.params]
    found = dict(zip(evaluation.params, evaluation.product(asked), strict=True))
    return [
        [sign * found[p] + l2_of(bucket) * given[p] for p, sign in zip(bucket.params, bucket.signs, strict=True)]
        for bucket in buckets
    ]


class DiagonalMetric(Protocol):
    """A positive diagonal that follows the training."""

    needs_closure: bool

    def advance(self, buckets: Sequence[Bucket]) -> None:
        """Take in this step's gradients, or products with the Hessian, of the whole model."""

    def weights(self, bucket: Bucket) -> list[Tensor]:
        """B, a tensor for each parameter."""


class UnitDiagonal:
    """The Euclidean metric.

    >>> UnitDiagonal().needs_closure
    False
    """

    needs_closure = False

    def advance(self, buckets: Sequence[Bucket]) -> None:
        """Nothing to do."""

    def weights(self, bucket: Bucket) -> list[Tensor]:
        """Ones."""
        return [torch.ones_like(g) for g in covectors(bucket)]


class SquaredGradients:
    """The sum of squared gradients (Adagrad's), or their average (Adam's), with or without the root.

    Without it (SQR) the metric has the square of a gradient as unit, and steps that a metric chooses do not depend on
    the scale of a parameter.

    Args:
        beta: decay of the average, its bias taken out; None sums.
        root: take the root.
        floor: least value of the metric; not 0, as a gradient of zeros would be divided by it.

    Raises:
        ArgumentError: a value out of range.

    >>> SquaredGradients(beta=0.999).root
    False
    """

    needs_closure = False

    def __init__(self, beta: float | None = None, root: bool = False, floor: float = 0.1) -> None:
        if beta is not None and not 0.0 <= beta < 1.0:
            raise ArgumentError("beta2", beta, "a number in [0, 1), or None")
        check_floor(floor)
        self.beta, self.root, self.floor = beta, root, floor

    def advance(self, buckets: Sequence[Bucket]) -> None:
        """Take in the squares."""
        for bucket in buckets:
            for state, g in zip(bucket.states, covectors(bucket), strict=True):
                past = state.get("square")
                past = torch.zeros_like(g) if past is None else past
                keep, rate = (1.0, 1.0) if self.beta is None else (self.beta, 1 - self.beta)
                state["square"] = (past * keep).addcmul_(g, g, value=rate)

    def weights(self, bucket: Bucket) -> list[Tensor]:
        """The squares, corrected and not below the floor."""
        correction = 1.0 if self.beta is None else 1 - self.beta ** int(bucket.t)
        corrected = [state["square"] / correction for state in bucket.states]
        return [(x.sqrt() if self.root else x).clamp(min=self.floor) for x in corrected]


class HutchinsonDiagonal:
    """The absolute value of the average of ``z * (H z)``, z random signs: of the Hessian's diagonal.

    Args:
        beta: decay of the average.
        floor: least value of the metric, alpha.
        probes: products averaged before the first step, which the average starts from.
        seed: of the signs.

    Raises:
        ArgumentError: a value out of range.

    Source: Jahani et al., "Doubly adaptive scaled algorithm for machine learning using second-order information", 2021.

    >>> HutchinsonDiagonal().needs_closure
    True
    """

    needs_closure = True

    def __init__(self, beta: float = 0.999, floor: float = 1e-3, probes: int = 100, seed: int = 0) -> None:
        if not 0.0 <= beta < 1.0:
            raise ArgumentError("beta2", beta, "a number in [0, 1)")
        if probes < 1:
            raise ArgumentError("probes", probes, "a whole number of at least 1")
        check_floor(floor)
        check_seed(seed)
        self.beta, self.floor, self.probes, self.seed = beta, floor, probes, seed

    def advance(self, buckets: Sequence[Bucket]) -> None:
        """One product; in the first step of parameters, as many as there are probes."""
        fresh = any("hessian_diagonal" not in state for bucket in buckets for state in bucket.states)
        draws = [self._draw(buckets, probe) for probe in range(self.probes if fresh else 1)]
        for place, bucket in enumerate(buckets):
            for i, state in enumerate(bucket.states):
                past = state.get("hessian_diagonal")
                if past is None:
                    state["hessian_diagonal"] = torch.stack([draw[place][i] for draw in draws]).mean(0)
                else:
                    state["hessian_diagonal"] = torch.lerp(draws[0][place][i], past, self.beta)

    def weights(self, bucket: Bucket) -> list[Tensor]:
        """``max(|D|, alpha)``."""
        return [state["hessian_diagonal"].abs().clamp(min=self.floor) for state in bucket.states]

    def _draw(self, buckets: Sequence[Bucket], probe: int) -> list[list[Tensor]]:
        noise = FitNoise(self.seed, "hutchinson", probe, *[int(bucket.t) for bucket in buckets])
        signs = [[noise.signs(g) for g in covectors(bucket)] for bucket in buckets]
        found = products(buckets, signs)
        return [[z * hz for z, hz in zip(*pair, strict=True)] for pair in zip(signs, found, strict=True)]


def check_floor(floor: float) -> None:
    """The least value of a metric is positive.

    >>> check_floor(1e-30)
    """
    if not 0.0 < floor < float("inf"):
        raise ArgumentError("floor", floor, "a finite number above 0")
