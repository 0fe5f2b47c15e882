"""Backprop: the exact gradient, dense or projected onto a sketch as soon as it exists."""

from __future__ import annotations

import torch

from covector.errors import CompositionError
from covector.estimators.base import Estimate, Estimator, NonFinitePolicy
from covector.gradients import Dense, Gradient, Sketch, SketchPool, project
from covector.objective import Batch, Objective

__all__ = ["Backprop"]


class Backprop(Estimator):
    """Reverse-mode differentiation.

    Args:
        carrier: ``None`` for a :class:`~covector.gradients.Dense` gradient, or a
            :class:`~covector.gradients.SketchPool`: the gradient is then ``S S^T g``, carried by the N numbers
            ``S^T g``, an unbiased estimate over the draw of the signs.
        nonfinite: ``"raise"`` or ``"skip"``.

    Raises:
        CompositionError: ``carrier`` is something a dense gradient cannot be projected onto.

    >>> from covector import Objective
    >>> objective = Objective.from_function(lambda p, b: (p["x"] ** 2).sum(), {"x": torch.ones(3)})
    >>> Backprop()(objective, None).gradient.params["x"]
    tensor([2., 2., 2.])
    """

    def __init__(self, carrier: SketchPool | None = None, nonfinite: NonFinitePolicy = "raise") -> None:
        super().__init__(nonfinite)
        if carrier is not None and not isinstance(carrier, SketchPool):
            raise CompositionError(
                f"carrier={carrier!r}: a backpropagated gradient is carried dense (None) or by a SketchPool"
            )
        self.carrier = carrier

    def estimate(self, objective: Objective, batch: Batch) -> Estimate:
        live = {name: p.detach().requires_grad_() if not p.requires_grad else p for name, p in objective.params.items()}
        at = None if all(live[name] is p for name, p in objective.params.items()) else live
        with torch.enable_grad():
            loss = objective(batch, at)
            tensors = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
        filled = {
            name: torch.zeros_like(p, requires_grad=False) if g is None else g
            for (name, p), g in zip(live.items(), tensors, strict=True)
        }
        gradient: Gradient = Dense(filled)
        if self.carrier is not None:
            gradient = Sketch(self.carrier.key, project(filled, self.carrier.key, self.carrier.size))
        return Estimate(float(loss.detach()), gradient, evaluations=3)
