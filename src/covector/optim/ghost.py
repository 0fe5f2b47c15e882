"""Ghost norms: the moments of per-example gradients out of one ordinary backward pass, none of them formed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from covector import trees
from covector.curvature.capture import Capture
from covector.curvature.factors import Factors
from covector.objective import Batch, Objective
from covector.optim.moments import GradientMoments, inner_variances
from covector.trees import Params

__all__ = ["GhostNorms"]


class GhostNorms:
    """Per-example gradients of a batch in factored form, kept while it is backpropagated.

    Serves linear layers, convolutions (one group, no circular or named padding), embeddings and norm layers (batch
    normalization in evaluation mode), shared ones included. The examples must be the first dimension of every such
    layer's input, and the loss their mean.

    Args:
        objective: made from a module; all its trained parameters belong to such layers.
        batch: the batch, at least one example.

    Attributes:
        loss: the mean loss.
        gradient: its gradient.
        factors: of each parameter, the gradients of its examples.

    Raises:
        CompositionError: the objective is a plain function.
        UnsupportedError: a trained parameter belongs to another kind of layer, or a layer mixes examples.

    >>> objective = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> GhostNorms(objective, (3 * torch.eye(2), torch.ones(2, 1))).squared_norms()
    tensor([36., 36.], dtype=torch.float64)
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self.count = objective.size(batch)
        capture = Capture(objective, objective.params, self.count, strict=True)
        tensors = list(objective.params.values())
        with torch.enable_grad(), capture.watching():
            loss = objective(batch)
        capture.check(loss)
        edges = capture.edges()
        found = torch.autograd.grad(loss, [*tensors, *edges], allow_unused=True)
        self.loss = float(loss.detach())
        self.gradient: Params = {
            name: torch.zeros_like(p, requires_grad=False) if g is None else g
            for (name, p), g in zip(objective.params.items(), found[: len(tensors)], strict=True)
        }
        # a slope comes from the mean of the losses, an example's own gradient from its loss
        slopes = [[None if d is None else d * self.count] for d in found[len(tensors) :]]
        self.factors: dict[str, Factors] = capture.gathered(slopes)

    def squared_norms(self) -> Tensor:
        """``||g_i||^2`` over all parameters, ``[B]``."""
        norms = torch.zeros(self.count, dtype=torch.float64)
        for factors in self.factors.values():
            norms += factors.squared_norms().double().cpu()
        return norms

    def products(self, direction: Params) -> Params:
        """``<g_i, direction>`` of each parameter's own part, ``[B]``."""
        return {name: factors.along(direction[name]) for name, factors in self.factors.items()}

    def moments(self, inner: bool = False, variance: bool = False) -> GradientMoments:
        """The moments of the batch.

        Args:
            inner: whether to measure the inner variances: one more matrix product a layer.
            variance: whether to measure the variance of each coordinate: for sequences, this does form the gradients,
                a layer at a time.
        """
        n, mean = self.count, self.gradient
        if n < 2:
            return GradientMoments(n, mean, math.nan)
        scatter = float(self.squared_norms().sum()) - n * trees.dot(mean, mean)
        pair = inner_variances(self.products(mean)) if inner else (None, None)
        return GradientMoments(n, mean, scatter / (n - 1), *pair, self._variance() if variance else None)

    def _variance(self) -> Params:
        n, found = self.count, {}
        for name, mean in self.gradient.items():
            sums = self.factors[name].squares().reshape(mean.shape) if name in self.factors else mean * 0
            found[name] = ((sums - n * mean.square()) / (n - 1)).clamp_(min=0.0)
        return found
