"""Steps 4 and 5 of AdGD in a diagonal metric: directions ``B^{-1} g``, and a step size from the smoothness seen so far.

With B of :mod:`covector.optim.diagonals` and ``theta = eta / (eta before)``::

    eta <- min( sqrt(1 + theta) eta,  ||w - w_before||_B / (2 ||g - g_before||_{B^{-1}}) )
    w <- w - eta B^{-1} g

No learning rate: the first factor bounds the growth, the second is half an estimate of 1 / L. In training by batches
both gradients of the difference are those of the present batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.optim.diagonals import DiagonalMetric, covectors, l2_of
from covector.optim.slots import Bucket

__all__ = ["AdGDStep", "adgd_step_size"]


def adgd_step_size(eta: float, theta: float, moved: float, turned: float) -> float:
    """The next step size.

    Args:
        eta: the last.
        theta: ratio of the last two; ``inf`` after the first step.
        moved: ``||w - w_before||_B``.
        turned: ``||g - g_before||_{B^{-1}}``.

    Source: Jahani et al. 2021, Algorithm 1; Malitsky and Mishchenko, "Adaptive gradient descent without descent", 2020.

    >>> adgd_step_size(0.1, math.inf, 1.0, 2.0), adgd_step_size(0.1, 3.0, 1.0, 0.0)
    (0.25, 0.2)
    """
    bounds = []
    if math.isfinite(theta):
        bounds.append(math.sqrt(1 + theta) * eta)
    if turned > 0.0 and moved > 0.0:
        bounds.append(moved / (2 * turned))
    return min(bounds) if bounds else eta


class AdGDStep:
    """Map and scale rule: one step size for the whole model.

    Args:
        metric: B.
        eta0: the first step size.
        stochastic: evaluate the gradient before the last step again, on the present batch; otherwise keep it.
        adaptive: False keeps ``eta0``.

    Attributes:
        eta: the step size of the last step.

    Raises:
        ArgumentError: ``eta0`` is not positive.

    >>> from covector.optim.diagonals import UnitDiagonal
    >>> AdGDStep(UnitDiagonal()).needs_closure
    True
    """

    needs_directions = False

    def __init__(
        self, metric: DiagonalMetric, eta0: float = 1e-3, stochastic: bool = True, adaptive: bool = True
    ) -> None:
        if not 0.0 < eta0 < math.inf:
            raise ArgumentError("eta0", eta0, "a finite number above 0")
        self.metric, self.eta0, self.stochastic, self.adaptive = metric, eta0, stochastic, adaptive
        self.eta = eta0

    @property
    def needs_closure(self) -> bool:
        """For products with the Hessian, or for a gradient at another point."""
        return self.metric.needs_closure or (self.stochastic and self.adaptive)

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Advance the metric and choose the step size."""
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        check_finite_gradients(mine)
        self.metric.advance(mine)
        shared = mine[0].shared
        eta, theta = shared.get("eta", self.eta0), shared.get("theta", math.inf)
        new = eta
        if self.adaptive and "eta" in shared:
            new = adgd_step_size(eta, theta, *self._change(mine))
            theta = new / eta
        shared["eta"], shared["theta"], self.eta = new, theta, new
        for bucket in mine:
            for p, g, state in zip(bucket.params, covectors(bucket), bucket.states, strict=True):
                state["point_before"] = p.detach().to(g.dtype, copy=True)
                if not self.stochastic:
                    state["gradient_before"] = g.clone()

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """``B^{-1} g``."""
        return [d / b for d, b in zip(directions, self.metric.weights(bucket), strict=True)]

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """The step size for each tensor."""
        return [self.eta] * len(bucket.params)

    def _change(self, buckets: Sequence[Bucket]) -> tuple[float, float]:
        """``||w - w_before||_B`` and ``||g - g_before||_{B^{-1}}`` over the model."""
        before = self._gradients_before(buckets)
        moved, turned = 0.0, 0.0
        for bucket in buckets:
            for p, g, b, state in zip(
                bucket.params, covectors(bucket), self.metric.weights(bucket), bucket.states, strict=True
            ):
                if p not in before:
                    continue
                step, change = (p.to(g.dtype) - state["point_before"]).double(), (g - before[p]).double()
                moved += float((step.square() * b).sum())
                turned += float((change.square() / b).sum())
        return math.sqrt(moved), math.sqrt(turned)

    def _gradients_before(self, buckets: Sequence[Bucket]) -> dict[Tensor, Tensor]:
        """Gradients where the last step began, of parameters that made it."""
        if not self.stochastic:
            return {
                p: state["gradient_before"]
                for bucket in buckets
                for p, state in zip(bucket.params, bucket.states, strict=True)
                if "gradient_before" in state
            }
        evaluation = buckets[0].evaluation
        assert evaluation is not None
        points = {
            p: state["point_before"]
            for bucket in buckets
            for p, state in zip(bucket.params, bucket.states, strict=True)
            if "point_before" in state
        }
        found = evaluation.gradients_at([points.get(p, p.detach()) for p in evaluation.params])
        raw = dict(zip(evaluation.params, found, strict=True))
        return {
            p: sign * g.to(points[p].dtype) + l2_of(bucket) * points[p]
            for bucket in buckets
            for p, sign in zip(bucket.params, bucket.signs, strict=True)
            if p in points and (g := raw[p]) is not None
        }


def check_finite_gradients(buckets: Sequence[Bucket]) -> None:
    """Refuse NaN and infinities before a metric takes them in.

    >>> check_finite_gradients([])
    """
    for bucket in buckets:
        largest: Sequence[Tensor] = torch._foreach_norm(covectors(bucket), float("inf"))
        if not bool(torch.stack(list(largest)).isfinite().all()):
            raise NonFiniteError("a gradient is NaN or infinite; nothing was changed")
