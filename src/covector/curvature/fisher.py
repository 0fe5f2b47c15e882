"""Fisher matrices: the second moment of the gradient, over targets of the model's own or over those of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from covector.curvature.flat import Selection
from covector.curvature.gauss_newton import GaussNewton
from covector.curvature.operator import Backend
from covector.curvature.outputs import UNKNOWN, likelihood
from covector.errors import ArgumentError, CompositionError
from covector.objective import Batch, Objective

__all__ = ["Fisher", "FisherKind"]

FisherKind = Literal["true", "sampled", "empirical"]


class Fisher(GaussNewton):
    """``F = E[g g^T]``, ``g`` the gradient of the loss of one prediction.

    A prediction is a row of class scores for cross entropy (of every token, in a language model), a single output for
    squared error and logistic loss; its loss is its negative log-likelihood, so that squared error is a Gaussian of
    variance 1/2. With this, the true matrix is the Gauss-Newton matrix.

    Args:
        objective: made from a module; for ``"empirical"`` a plain function will do.
        batches: one batch, a list of batches, or a loader.
        kind: ``"true"``: targets from the model's distribution, in closed form. ``"sampled"``: drawn from it, once for
            each batch. ``"empirical"``: the targets of the data, and the gradients of whole examples.
        samples: for ``"sampled"``: targets drawn for each prediction.
        seed: of the draws.
        backend: see :class:`CurvatureOperator`.
        params: a sub-block, by names or a predicate.
        keep: whether to keep graphs; default: for one batch and lists of up to 16.

    Raises:
        ArgumentError: an unknown kind, or no sample.
        CompositionError: the loss is of no known likelihood; not for ``"empirical"``.

    Source: Kunstner, Balles, Hennig, "Limitations of the empirical Fisher approximation", arXiv:1905.12558.

    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> op = Fisher(Objective(line, torch.nn.functional.mse_loss), (torch.eye(2), torch.zeros(2, 1)))
    >>> op.dense()
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(
        self,
        objective: Objective,
        batches: Any,
        *,
        kind: FisherKind = "true",
        samples: int = 1,
        seed: int = 0,
        backend: Backend = "auto",
        params: Selection = None,
        keep: bool | None = None,
    ) -> None:
        if kind not in get_args(FisherKind):
            raise ArgumentError("kind", kind, f"one of {get_args(FisherKind)}")
        if samples < 1:
            raise ArgumentError("samples", samples, "a whole number of at least 1")
        if kind != "empirical" and not likelihood(objective):
            raise CompositionError(UNKNOWN)
        self.kind, self.samples, self.seed = kind, samples, seed
        super().__init__(objective, batches, backend=backend, params=params, keep=keep)

    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        if self.kind == "true":
            return super().term(batch, backend, index)
        if self.kind == "sampled":
            return self._sampled(batch, backend, index)
        line = self.linearize(lambda params: self.objective.per_example(batch, params), backend)
        return lambda vector: line.pull(line.push(vector) / len(line.value))

    def _sampled(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        line, outputs = self.outputs(batch, backend)
        generator = torch.Generator(self.device).manual_seed(hash((self.seed, index)) % 2**63)
        draws = [outputs.sample(generator) for _ in range(self.samples)]

        def product(vector: Tensor) -> Tensor:
            tangent = line.push(vector)
            outer = torch.stack([outputs.outer(slopes, tangent) for slopes in draws]).mean(0)
            return line.pull(outer)

        return product
