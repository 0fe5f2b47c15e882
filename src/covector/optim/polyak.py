"""Slots 4 and 5 of SANIA: directions ``B^{-1} g``, and the step at which a quadratic model of the loss is zero.

With ``l = f - f*``, ``s = B^{-1} g`` and ``q = g^T s``, over all param groups::

    lambda = 1 - sqrt(1 - 2 l / q) if 2 l <= q else 1,     w <- w - lambda s

``l - lambda q + lambda^2 q / 2``, the model along s in the metric B, is zero there; where it has no zero, the step goes
to its minimum. A learning rate lr makes the metric ``B / lr``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.linalg import FunctionOperator, cg
from covector.optim.adgd import check_finite_gradients
from covector.optim.diagonals import DiagonalMetric, covectors, products
from covector.optim.slots import Bucket

__all__ = ["Inverse", "InverseDiagonal", "NewtonInverse", "PolyakStep", "implicit_polyak"]


def implicit_polyak(excess: float, q: float) -> float:
    """``1 - sqrt(1 - 2 l / q)``, or 1 where there is no root.

    Source: Abdukhakimov et al., "SANIA: Polyak-type optimization framework leads to scale invariant stochastic
    algorithms", 2023, equation 10.

    >>> implicit_polyak(0.0, 1.0), implicit_polyak(0.375, 1.0), implicit_polyak(2.0, 1.0)
    (0.0, 0.5, 1.0)
    """
    if excess <= 0.0:
        return 0.0
    ratio = 2 * excess / q if q > 0.0 else math.inf
    # without cancellation for small ratios
    return ratio / (1 + math.sqrt(1 - ratio)) if ratio <= 1.0 else 1.0


class Inverse(Protocol):
    """Directions ``B^{-1} g`` of the whole model."""

    needs_closure: bool

    def __call__(self, buckets: Sequence[Bucket]) -> list[list[Tensor]]:
        """A direction for each parameter of each bucket; advances B."""


class InverseDiagonal:
    """Directions in a diagonal metric.

    >>> from covector.optim.diagonals import SquaredGradients
    >>> InverseDiagonal(SquaredGradients()).needs_closure
    False
    """

    def __init__(self, metric: DiagonalMetric) -> None:
        self.metric, self.needs_closure = metric, metric.needs_closure

    def __call__(self, buckets: Sequence[Bucket]) -> list[list[Tensor]]:
        self.metric.advance(buckets)
        return [
            [g / b for g, b in zip(covectors(bucket), self.metric.weights(bucket), strict=True)] for bucket in buckets
        ]


class NewtonInverse:
    """Newton's directions ``H^{-1} g`` by conjugate gradients, stopped where the Hessian is not positive.

    Args:
        steps: products at most.
        tol: residual at which it stops, relative to the gradient.

    >>> NewtonInverse().needs_closure
    True
    """

    needs_closure = True

    def __init__(self, steps: int = 50, tol: float = 1e-6) -> None:
        if steps < 1:
            raise ArgumentError("newton_steps", steps, "a whole number of at least 1")
        self.steps, self.tol = steps, tol

    def __call__(self, buckets: Sequence[Bucket]) -> list[list[Tensor]]:
        sizes = [[g.numel() for g in covectors(bucket)] for bucket in buckets]

        def flat(lists: Sequence[Sequence[Tensor]]) -> Tensor:
            return torch.cat([x.reshape(-1).double() for own in lists for x in own])

        def lists(vector: Tensor) -> list[list[Tensor]]:
            parts = iter(vector.split([size for own in sizes for size in own]))
            return [[next(parts).view_as(g).to(g.dtype) for g in covectors(bucket)] for bucket in buckets]

        gradient = flat([covectors(bucket) for bucket in buckets])
        hessian = FunctionOperator(
            lambda vector: flat(products(buckets, lists(vector))),
            (len(gradient), len(gradient)), dtype=gradient.dtype, device=gradient.device, symmetric=True,
        )  # fmt: skip
        return lists(cg(hessian, gradient, tol=self.tol, max_steps=self.steps, on_indefinite="stop").x)


class PolyakStep:
    """Map and scale rule of SANIA: one step for the whole model.

    Args:
        inverse: the directions.
        f_star: the least loss of a batch; 0 where every example can be fitted.

    Attributes:
        step: lambda of the last step.

    >>> from covector.optim.diagonals import UnitDiagonal
    >>> PolyakStep(InverseDiagonal(UnitDiagonal())).step
    0.0
    """

    needs_directions = False

    def __init__(self, inverse: Inverse, f_star: float = 0.0) -> None:
        if not math.isfinite(f_star):
            raise ArgumentError("f_star", f_star, "a finite number")
        self.inverse, self.f_star, self.step = inverse, f_star, 0.0

    @property
    def needs_closure(self) -> bool:
        """For products with the Hessian."""
        return self.inverse.needs_closure

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Take the directions of the whole model, and choose the step."""
        if loss is None:
            raise ArgumentError("loss", None, "the loss: step(closure), or step(loss=loss)")
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}; nothing was changed")
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        check_finite_gradients(mine)
        signs = {bool(bucket.group["maximize"]) for bucket in mine}
        if len(signs) > 1:
            raise ArgumentError("maximize", sorted(signs), "the same for all param groups")
        found = self.inverse(mine)
        q = sum(
            float(bucket.group["lr"]) * float((g.double() * s.double()).sum())
            for bucket, own in zip(mine, found, strict=True)
            for g, s in zip(covectors(bucket), own, strict=True)
        )
        excess = (-value if True in signs else value) - self.f_star
        self.step = implicit_polyak(excess, q)
        for bucket, own in zip(mine, found, strict=True):
            bucket.scratch["directions"] = own

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """``B^{-1} g``."""
        found: list[Tensor] = bucket.scratch["directions"]
        return found

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """Lambda for each tensor."""
        return [self.step] * len(bucket.params)
