"""Backpropagation that also measures how much the examples of a batch disagree."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from covector import trees
from covector.curvature.examples import inner_products, per_example_gradients, split
from covector.errors import ArgumentError
from covector.estimators import Backprop, Estimate, Estimator
from covector.estimators.base import NonFinitePolicy
from covector.gradients import Dense
from covector.objective import Batch, Objective
from covector.optim.ghost import GhostNorms
from covector.optim.moments import GradientMoments
from covector.trees import Params

__all__ = ["Measure", "MomentsBackprop"]

Measure = Literal["per_sample", "micro", "ghost"]

# micro-batches of estimator="micro" where no size is given
_PIECES = 8


class MomentsBackprop(Estimator):
    """The exact gradient, with :class:`GradientMoments` of the batch in ``.parts``.

    A batch of any size is worked through in micro-batches, so that it need not fit into memory with its activations.

    Args:
        measure: ``"per_sample"``: per-example gradients by ``vmap``, for every model that ``torch.func`` can
            differentiate; needs the memory of a micro-batch of gradients. ``"ghost"``: from the factors of an ordinary
            backward pass (:class:`GhostNorms`). ``"micro"``: from the scatter of the micro-batches' gradients; for
            every model, at no cost, with the relative error of a variance from few numbers.
        micro: examples a micro-batch; default: the whole batch, for ``"micro"`` an eighth of it.
        inner: measure the inner variances; over several micro-batches this takes one forward pass with tangents more.
        variance: measure the variance of each coordinate.
        nonfinite: ``"raise"`` or ``"skip"``.

    Attributes:
        active: whether to measure; otherwise it is plain backpropagation in micro-batches.
        parts: the moments of the batches since they were last taken, one a call.
        examples: the number of examples since then.

    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> estimator = MomentsBackprop("ghost", micro=4)
    >>> estimate = estimator(objective, (torch.randn(10, 2), torch.randn(10, 1)))
    >>> estimator.parts[0].count
    10
    """

    def __init__(
        self,
        measure: Measure = "per_sample",
        micro: int | None = None,
        inner: bool = False,
        variance: bool = False,
        nonfinite: NonFinitePolicy = "raise",
    ) -> None:
        super().__init__(nonfinite)
        if measure not in get_args(Measure):
            raise ArgumentError("estimator", measure, f"one of {get_args(Measure)}")
        if micro is not None and micro < 1:
            raise ArgumentError("micro", micro, "a whole number of at least 1")
        self.measure: Measure = measure
        self.micro = micro
        self.inner = inner
        self.variance = variance
        self.active = True
        self.parts: list[GradientMoments] = []
        self.examples = 0

    def take(self) -> tuple[int, GradientMoments | None]:
        """Examples, and moments if they were measured, since the last call, all batches of a step together."""
        parts, examples = self.parts, self.examples
        self.parts, self.examples = [], 0
        return examples, GradientMoments.merge(parts) if parts else None

    def estimate(self, objective: Objective, batch: Batch) -> Estimate:
        count = objective.size(batch)
        self.examples += count
        micro = self.micro or (max(1, math.ceil(count / _PIECES)) if self.measure == "micro" and self.active else count)
        pieces = split(batch, micro, count)
        sizes = [objective.size(piece) for piece in pieces]
        if not self.active or self.measure == "micro":
            loss, means = _backprop(objective, pieces, sizes)
            mean = _pooled(means, sizes)
            if self.active and len(pieces) > 1:
                self._keep(GradientMoments.from_means(means, sizes))
        else:
            loss, moments = self._measured(objective, pieces)
            mean = moments.mean
            self._keep(moments)
        return Estimate(loss, Dense(mean), evaluations=3)

    def _keep(self, moments: GradientMoments) -> None:
        # a batch that the policy skips must not leave its moments behind
        if trees.norm(moments.mean) < math.inf:
            self.parts.append(moments)

    def _measured(self, objective: Objective, pieces: list[Batch]) -> tuple[float, GradientMoments]:
        losses, parts = 0.0, []
        for piece in pieces:
            loss, moments = self._of_piece(objective, piece)
            losses += loss * moments.count
            parts.append(moments)
        merged = GradientMoments.merge(parts)
        if self.inner and len(parts) > 1:
            products = torch.cat([inner_products(objective, piece, merged.mean) for piece in pieces])
            merged = GradientMoments(
                merged.count, merged.mean, merged.trace, float(products.double().var()), None, merged.variance
            )
        return losses / merged.count, merged

    def _of_piece(self, objective: Objective, piece: Batch) -> tuple[float, GradientMoments]:
        if self.measure == "ghost":
            ghost = GhostNorms(objective, piece)
            return ghost.loss, ghost.moments(self.inner, self.variance)
        losses, gradients = per_example_gradients(objective, piece)
        return float(losses.double().mean()), GradientMoments.from_examples(gradients)


def _backprop(objective: Objective, pieces: list[Batch], sizes: list[int]) -> tuple[float, list[Params]]:
    plain, loss, means = Backprop(), 0.0, []
    for piece, size in zip(pieces, sizes, strict=True):
        estimate = plain.estimate(objective, piece)
        assert isinstance(estimate.gradient, Dense)
        loss += estimate.loss * size / sum(sizes)
        means.append(estimate.gradient.params)
    return loss, means


def _pooled(means: list[Params], sizes: list[int]) -> Params:
    if len(means) == 1:
        return means[0]
    mean = trees.zeros_like(means[0])
    for own, size in zip(means, sizes, strict=True):
        trees.axpy_(mean, own, size / sum(sizes))
    return mean
