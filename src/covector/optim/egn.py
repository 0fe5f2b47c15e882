"""Exact Gauss-Newton: the direction of the damped Gauss-Newton matrix, exactly, from a system as large as the batch.

With outputs z of the whole batch, ``J = dz/dw``, ``r = dL/dz`` and ``S S^T = d^2 L/dz^2``, the matrix
``G = J^T S S^T J`` of all parameters has the rank of the batch's outputs, and::

    d = -(G + lambda I)^{-1} J^T r = -J^T u,        u = S (S^T K S + lambda I)^{-1} z,    S z = r,    K = J J^T

by the push-through identity. K, of one row an output, is made layer by layer; J is never formed. What of r lies outside
of the range of S (nothing, for the usual losses) goes through Woodbury's identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from covector.curvature import gram
from covector.curvature.outputs import outputs_of
from covector.errors import CompositionError
from covector.objective import Batch, Objective
from covector.optim.checks import check_fractions, check_positive
from covector.optim.damping import LevenbergMarquardt
from covector.optim.displaced import RandomState
from covector.optim.line_search import Armijo
from covector.optim.objective_optimizer import ObjectiveOptimizer
from covector.optim.output_root import OutputRoot
from covector.optim.vectors import Vector

__all__ = ["EGN", "gram_solve"]


def gram_solve(k: Tensor, root: OutputRoot, damping: float) -> Tensor:
    """u ``[m]`` with ``J^T u = (G + damping I)^{-1} J^T r``, in float64.

    Args:
        k: ``K = J J^T`` ``[m, m]``.
        root: S and r.
        damping: lambda, above 0.

    >>> objective = Objective(torch.nn.Linear(1, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> batch = (torch.tensor([[2.0]]), torch.tensor([[6.0]]))  # J = 2, r = -12, G = 8
    >>> root = OutputRoot(objective, batch, objective.outputs(batch))
    >>> round(2 * gram_solve(torch.tensor([[4.0]]), root, 1e-9).item(), 6)
    -3.0
    """
    k = k.double()
    z, rest = root.split()
    matrix = root.transposed(root.transposed(k).mT)
    matrix.diagonal().add_(damping)
    right = torch.stack([z, root.transposed(k @ rest)], 1)
    factor, info = torch.linalg.cholesky_ex(matrix)
    # rounding can make an eigenvalue negative where the damping lies below the Gram matrix's precision
    solved = torch.linalg.lstsq(matrix, right).solution if bool(info) else torch.cholesky_solve(right, factor)
    return root(solved[:, 0]) + (rest - root(solved[:, 1])) / damping


class EGN(ObjectiveOptimizer):
    """Exact Gauss-Newton; ``step(batch)``.

    The damping is that of the mean loss's own scale: ``mse_loss`` is a mean over outputs without a factor 1/2.

    Args:
        objective: a module and a loss: cross entropy, squared error and logistic loss in closed form, any other by the
            Hessian of an example's loss.
        lr: step along the direction, default 0.3; with a line search, the longest step.
        damping: lambda, default 1.0; the authors search 1e-3 to 1.
        momentum: of the direction, without bias, default 0.
        weight_decay: strength; decoupled.
        line_search: :class:`~covector.optim.Armijo` on the batch's loss; default: none.
        adapt: :class:`~covector.optim.LevenbergMarquardt`, for the damping; default: constant.

    Raises:
        CompositionError: what is given is no objective, or one made from a function, which has no outputs.
        ArgumentError: a number out of range.
        NonFiniteError: from ``step``, where the loss is not finite. Nothing has changed then.

    Source: Korbit, Adeoye, Bemporad, Zanon, "Exact Gauss-Newton optimization for training deep neural networks", 2024,
    Algorithm 1; here in a symmetric form.

    >>> torch.manual_seed(0)
    <...>
    >>> line, x = torch.nn.Linear(2, 1, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    >>> optimizer = EGN(Objective(line, torch.nn.functional.mse_loss), lr=1.0, damping=1e-12)
    >>> _ = optimizer.step((x, x @ torch.tensor([[1.0], [2.0]], dtype=x.dtype) + 3.0))  # least squares, in one step
    >>> [round(value, 6) for value in [*line.weight.flatten().tolist(), line.bias.item()]]
    [1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        objective: Objective,
        lr: float = 0.3,
        damping: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        line_search: Armijo | None = None,
        adapt: LevenbergMarquardt | None = None,
    ) -> None:
        if isinstance(objective, Objective) and objective.module is None:
            raise CompositionError("an objective made from a function has no outputs; use Objective(module, loss)")
        super().__init__(objective, lr, weight_decay, damping=damping, momentum=momentum, step_size=float(lr))
        self.line_search, self.adapt = line_search, adapt

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_positive(group, "damping")
        check_fractions(group, "momentum")

    def direct(self, batch: Batch) -> Tensor:
        group, random = self.group, RandomState(self.params)
        k = gram(self.objective, batch).double()  # first, for it refuses what has no Jacobian before anything changes
        leaves = self.leaves()
        with torch.enable_grad():
            outputs = outputs_of(self.objective, batch, leaves)

        def pulled(u: Tensor) -> list[Tensor]:  # J^T u
            cotangent, points = u.to(outputs.dtype).view(outputs.shape), list(leaves.values())
            found = torch.autograd.grad(outputs, points, cotangent, retain_graph=True, allow_unused=True)
            return [torch.zeros_like(p) if v is None else v for p, v in zip(self.params, found, strict=True)]

        root = OutputRoot(self.objective, batch, outputs)
        loss = self.checked(root.loss)
        u = gram_solve(k, root, group["damping"])
        direction = pulled(-u)
        pushed = -(k @ u)  # J d
        slope = float(root.gradient @ pushed)
        if group["momentum"]:
            averaged = self.averaged(direction, group["momentum"])
            along = float(Vector(averaged).dot(Vector(pulled(root.gradient))))
            if along < 0.0 or self.line_search is None:
                direction, slope, pushed = averaged, along, self._pushed(batch, averaged)

        def trial(step: float) -> float:
            return self.loss_at(batch, [step * d for d in direction], random)

        step, after = float(group["lr"]), None
        if self.line_search is not None:
            step, after = self.line_search(trial, loss, slope, min(step, self.line_search.grow * group["step_size"]))
            group["step_size"] = step or float(group["lr"])
        if self.adapt is not None:
            after = trial(step) if after is None else after
            curved = root.transposed(pushed)
            promised = step * slope + step * step * float(curved @ curved) / 2
            ratio = (after - loss) / promised if promised < 0.0 else math.nan
            group["damping"] = self.adapt.adapt(group["damping"], ratio)
        self.move(direction, step)
        return root.loss

    def _pushed(self, batch: Batch, direction: list[Tensor]) -> Tensor:
        """``J v``, in float64."""
        live = {name: p.detach() for name, p in self.objective.params.items()}
        tangent = dict(zip(live, direction, strict=True))
        pushed: Tensor = jvp(lambda params: outputs_of(self.objective, batch, params), (live,), (tangent,))[1]
        return pushed.detach().double().flatten()
