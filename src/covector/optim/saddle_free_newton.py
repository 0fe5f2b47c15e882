"""Saddle-free Newton: Newton's step with the absolute values of the Hessian's eigenvalues.

Newton's step goes to the nearest critical point, so that saddles attract it: along directions of negative curvature it
has the wrong sign. In the Krylov space of the gradient, where the Hessian is ``V H V^T = U diag(e) U^T``::

    d = -V^T U (|e| + lambda)^{-1} U^T V g

which is ``-(|H| + lambda I)^{-1} g`` exactly where the space is invariant, as for k = n. Outside of the space nothing
moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.linalg import LinearOperator, lanczos, symmetric_eigh
from covector.objective import Batch, Objective
from covector.optim.checks import check_positive
from covector.optim.damping import LevenbergMarquardt
from covector.optim.displaced import RandomState
from covector.optim.objective_optimizer import ObjectiveOptimizer
from covector.trees import flatten

__all__ = ["AbsoluteModel", "SaddleFreeNewton", "absolute_model"]

# of the damping, tried from large to small; and beyond, where none of these lowers the loss
GRID = tuple(10.0**-k for k in range(7))
BEYOND = (1e1, 1e2, 1e3, 1e4)
TENFOLD = LevenbergMarquardt(low=0.0, high=0.3, grow=10.0, shrink=0.1, least=1e-5, most=1e4)


class AbsoluteModel(NamedTuple):
    """``|H|`` and the gradient in a subspace, in coordinates where ``|H|`` is diagonal.

    Attributes:
        values: eigenvalues e of the Hessian there, float64 ``[k]``.
        gradient: coordinates of the gradient, float64 ``[k]``.
        vectors: rows ``[k, n]``, orthonormal.
    """

    values: Tensor
    gradient: Tensor
    vectors: Tensor

    def step(self, damping: float) -> Tensor:
        """Coordinates of ``-(|H| + damping I)^{-1} g``."""
        return -self.gradient / (self.values.abs() + damping)

    def promised(self, step: Tensor) -> float:
        """``<g, d> + <d, |H| d> / 2``."""
        return float(self.gradient @ step + (self.values.abs() * step.square()).sum() / 2)


def absolute_model(op: LinearOperator, gradient: Tensor, steps: int, previous: Tensor | None = None) -> AbsoluteModel:
    """The model of ``steps`` products with the Hessian, started at the gradient.

    Args:
        op: the Hessian.
        gradient: flat ``[n]``.
        steps: of the Lanczos iteration; fewer where the space is exhausted.
        previous: a direction that is added to the space, for one product more.

    >>> from covector.linalg import DenseOperator
    >>> model = absolute_model(DenseOperator(torch.diag(torch.tensor([2.0, -4.0]))), torch.tensor([2.0, 4.0]), 2)
    >>> (model.step(0.0).float() @ model.vectors).round(decimals=5)
    tensor([-1., -1.])
    """
    run = lanczos(op, gradient, steps)
    basis, small = run.basis, run.tridiagonal()
    if previous is not None:
        extra = previous.to(basis)
        for _ in range(2):
            extra = extra - (basis @ extra) @ basis
        if float(extra.norm()) > 1e-4 * float(previous.norm()):
            extra = extra / extra.norm()
            basis = torch.cat([basis, extra[None]])
            last = (basis @ (op @ extra)).double()
            small = torch.nn.functional.pad(small, (0, 1, 0, 1))
            small[-1, :], small[:, -1] = last, last
    values, vectors = symmetric_eigh(small)
    return AbsoluteModel(values, vectors.mT @ (basis @ gradient).double(), vectors.mT.to(basis) @ basis)


class SaddleFreeNewton(ObjectiveOptimizer):
    """Saddle-free Newton in a Krylov space; ``step(batch)``, with batches large enough for their curvature to be true.

    Args:
        objective: the loss; one made from a function will do.
        lr: factor of the step, default 1.0.
        krylov: Hessian products a step, default 30.
        damping: ``"search"``: of 1, 0.1, ..., 1e-6 the one that lowers the batch's loss most, as published; ``"lm"``:
            by comparing with the model ``<g, d> + <d, |H| d> / 2``, and without steps that raise the loss; or a number.
        previous: add the previous step to the space, for one product more.
        weight_decay: strength; decoupled.

    Raises:
        CompositionError: what is given is no objective.
        ArgumentError: a number out of range.
        NonFiniteError: from ``step``, where the loss is not finite. Nothing has changed then.
        UnsupportedError: from ``step``, where the loss is random (dropout), or changes buffers (batch normalization in
            training mode).

    Source: Dauphin, Pascanu, Gulcehre, Cho, Ganguli, Bengio, "Identifying and attacking the saddle point problem in
    high-dimensional non-convex optimization", 2014, Algorithm 1.

    >>> start = torch.tensor([1.0, 1e-3], dtype=torch.float64)  # next to the saddle of x^2 - y^2 + y^4 / 2 at 0
    >>> saddle = Objective.from_function(
    ...     lambda p, batch: p["x"][0] ** 2 - p["x"][1] ** 2 + p["x"][1] ** 4 / 2, {"x": start.requires_grad_()}
    ... )
    >>> optimizer = SaddleFreeNewton(saddle)
    >>> for _ in range(20):
    ...     loss = optimizer.step(None)
    >>> [round(value, 3) for value in start.abs().tolist()]
    [0.0, 1.0]
    """

    def __init__(
        self,
        objective: Objective,
        lr: float = 1.0,
        krylov: int = 30,
        damping: str | float = "search",
        previous: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if not (isinstance(krylov, int) and krylov >= 1):
            raise ArgumentError("krylov", krylov, "a whole number of at least 1")
        if isinstance(damping, str) and damping not in ("search", "lm"):
            raise ArgumentError("damping", damping, "'search', 'lm' or a number above 0")
        number = {"search": 1.0, "lm": 1e-2}[damping] if isinstance(damping, str) else damping
        self.krylov, self.previous = krylov, previous
        self.rule = damping if isinstance(damping, str) else "fixed"
        super().__init__(objective, lr, weight_decay, damping=number)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_positive(group, "damping")

    def direct(self, batch: Batch) -> Tensor:
        random, leaves = RandomState(self.params), self.leaves()
        with torch.enable_grad():
            loss = self.objective(batch, leaves)
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        start = self.checked(loss)
        gradient = flatten(
            {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(leaves.items(), found, strict=True)}
        )
        if not bool(gradient.any()):
            return loss.detach()  # at a critical point no direction is better than another
        op = Hessian(self.objective, batch)
        last = self.state[self.params[0]].get("direction") if self.previous else None
        model = absolute_model(op, gradient.to(op.dtype), self.krylov, last)
        lr = float(self.group["lr"])

        def moved(damping: float) -> Tensor:
            return (lr * model.step(damping)).to(model.vectors) @ model.vectors

        def trial(damping: float) -> float:
            return self.loss_at(batch, self.parts(moved(damping)), random)

        damping, taken = self._damp(model, trial, start)
        if taken:
            direction = moved(damping)
            if self.previous:
                self.state[self.params[0]]["direction"] = direction
            self.move(self.parts(direction), 1.0)
        return loss.detach()

    def _damp(self, model: AbsoluteModel, trial: Callable[[float], float], start: float) -> tuple[float, bool]:
        """The damping of this step, and whether to take it."""
        damping: float = self.group["damping"]
        if self.rule == "fixed":
            return damping, True
        if self.rule == "search":
            self.group["damping"], taken = searched(trial, start, damping)
            return self.group["damping"], taken
        after, promised = trial(damping), model.promised(float(self.group["lr"]) * model.step(damping))
        self.group["damping"] = TENFOLD.adapt(damping, (after - start) / promised)
        return damping, after <= start


def searched(trial: Callable[[float], float], start: float, last: float) -> tuple[float, bool]:
    """The damping of the published grid with the lowest loss, or the first beyond it that lowers it at all.

    Args:
        trial: the loss with a damping.
        start: the loss to get below.
        last: what is returned where no damping lowers the loss.

    >>> searched(lambda damping: abs(damping - 1e-3), 1.0, last=1.0)
    (0.001, True)
    """
    losses = {damping: trial(damping) for damping in GRID}
    finite = {damping: loss for damping, loss in losses.items() if loss < start}
    if finite:
        return min(finite, key=finite.__getitem__), True
    return next(((damping, True) for damping in BEYOND if trial(damping) < start), (last, False))
