"""The Hessian of the loss by the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp

from covector.curvature.flat import Selection, join, split
from covector.curvature.frozen import differentiable
from covector.curvature.graphs import check_twice_differentiable
from covector.curvature.linearization import difference
from covector.curvature.operator import Backend, CurvatureOperator
from covector.curvature.outputs import SQUARED, likelihood
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["Hessian"]


class Hessian(CurvatureOperator):
    """``H = d^2 L / d theta^2`` of the mean loss, as products: ``H v = d <dL/d theta, v> / d theta``.

    Args:
        objective: the loss; a plain function will do.
        batches: one batch, a list of batches, or a loader; see :class:`CurvatureOperator`.
        backend: ``"graph"``: the graph of the gradient is kept, a product is one backward pass through it (about 1 to
            2.5 gradients). ``"functional"``: forward tangents of the gradient, nothing kept.
            ``"differences"``: central differences of gradients, two gradients a product, for modules that have no
            second derivatives.
        params: a sub-block, by names or a predicate.
        keep: whether to keep graphs; default: for one batch and lists of up to 16.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).

    >>> quartic = Objective.from_function(lambda p, batch: (p["x"] ** 4).sum(), {"x": torch.tensor([1.0, 2.0])})
    >>> Hessian(quartic, None) @ torch.ones(2)
    tensor([12., 48.])
    """

    def __init__(
        self,
        objective: Objective,
        batches: Any,
        *,
        backend: Backend = "auto",
        params: Selection = None,
        keep: bool | None = None,
    ) -> None:
        super().__init__(objective, batches, backend=backend, params=params, keep=keep)

    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        own, everything = self.leaves()
        loss = lambda chosen: self.objective(batch, {**everything, **chosen})  # noqa: E731
        if backend == "functional":
            return _forward_over_reverse(_tangible(self.objective, batch, everything) or loss, own, self.dtype)
        if backend == "differences":
            return _differences(loss, own, self.dtype)
        return _double_backward(loss, own, self.dtype)


Loss = Callable[[Params], Tensor]


def _double_backward(loss: Loss, own: Params, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    tensors = list(own.values())
    with differentiable():
        slopes = torch.autograd.grad(loss(own), tensors, create_graph=True, allow_unused=True)
    check_twice_differentiable([slope for slope in slopes if slope is not None])
    # a loss may be linear in some parameters, or not depend on them
    bent = [(i, slope) for i, slope in enumerate(slopes) if slope is not None and slope.requires_grad]

    def product(vector: Tensor) -> Tensor:
        parts = split(vector, tensors)
        if not bent:
            return torch.zeros_like(vector)
        found = torch.autograd.grad(
            [slope for _, slope in bent], tensors, [parts[i] for i, _ in bent], retain_graph=True, allow_unused=True
        )
        return join(found, tensors, dtype)

    return product


def _forward_over_reverse(loss: Loss, own: Params, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    point = {name: p.detach() for name, p in own.items()}
    tensors = list(point.values())

    def product(vector: Tensor) -> Tensor:
        direction = dict(zip(point, split(vector, tensors), strict=True))
        with differentiable():
            # the gradient of a forward tangent would be wrong, without a word, for layer norms
            found: Params = jvp(grad(loss), (point,), (direction,))[1]
        return join(list(found.values()), tensors, dtype)

    return product


def _tangible(objective: Objective, batch: Batch, everything: Params) -> Loss | None:
    """The squared error written out: torch refuses forward tangents of the gradient of its own."""
    if likelihood(objective) != SQUARED:
        return None
    return lambda chosen: (objective.outputs(batch, {**everything, **chosen}) - batch[1]).square().mean()


def _differences(loss: Loss, own: Params, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    tensors: Sequence[Tensor] = list(own.values())

    def slope(params: Params) -> Tensor:
        points = [p.detach().requires_grad_() for p in params.values()]
        with torch.enable_grad():  # no second derivatives: attention may keep its fused kernel
            value = loss(dict(zip(params, points, strict=True)))
        return join(torch.autograd.grad(value, points, allow_unused=True), points, dtype)

    def product(vector: Tensor) -> Tensor:
        return difference(slope, own, dict(zip(own, split(vector, tensors), strict=True)))

    return product
