"""The covariance of the gradients of single examples: the noise of stochastic gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from covector.curvature.flat import Selection
from covector.curvature.frozen import fingerprint
from covector.curvature.operator import Backend, CurvatureOperator
from covector.objective import Batch, Objective

__all__ = ["GradientCovariance"]


class GradientCovariance(CurvatureOperator):
    """``C = E[g_i g_i^T] - g g^T`` over the examples of all batches, ``g`` their mean gradient.

    Products are ``E[g_i <g_i - g, v>]``: nothing cancels, however large the mean is. A stochastic gradient of ``B``
    examples, drawn with replacement, has covariance ``C / B``.

    Args:
        objective: the loss, a mean over examples; see :meth:`Objective.per_example`.
        batches: one batch, a list of batches, or a loader.
        centered: subtract the mean; without it the operator is the empirical Fisher matrix.
        backend: see :class:`CurvatureOperator`.
        params: a sub-block, by names or a predicate.
        keep: whether to keep graphs; default: for one batch and lists of up to 16.

    >>> objective = Objective.from_function(lambda p, batch: (p["x"] * batch).sum(1).mean(), {"x": torch.zeros(2)})
    >>> GradientCovariance(objective, torch.tensor([[1.0, 5.0], [3.0, 5.0]])).dense()
    tensor([[1., 0.],
            [0., 0.]])
    """

    def __init__(
        self,
        objective: Objective,
        batches: Any,
        *,
        centered: bool = True,
        backend: Backend = "auto",
        params: Selection = None,
        keep: bool | None = None,
    ) -> None:
        self.centered = centered
        self._gradient: tuple[tuple[Any, ...], Tensor] | None = None
        super().__init__(objective, batches, backend=backend, params=params, keep=keep, positive=True)

    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        line = self.linearize(lambda params: self.objective.per_example(batch, params), backend)
        alone = self.batches.in_memory and len(self.batches) == 1

        def product(vector: Tensor) -> Tensor:
            along = line.push(vector)
            if self.centered:
                along = along - (along.mean() if alone else self._mean_gradient(backend) @ vector)
            return line.pull(along / len(along))

        return product

    def _mean_gradient(self, backend: Backend) -> Tensor:
        seen = fingerprint(self.watched)
        if self._gradient is None or self._gradient[0] != seen:
            mean, total = torch.zeros(self.shape[1], dtype=torch.float64, device=self.device), 0
            for batch, weight in self.batches:
                line = self.linearize(partial(self.objective, batch), backend)
                mean.add_(line.pull(torch.ones_like(line.value)).double(), alpha=weight)
                total += weight
            self._gradient = seen, mean.div_(total).to(self.dtype)
        return self._gradient[1]
