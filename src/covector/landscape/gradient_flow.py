"""Gradient flow from a point to its end, and the sharpness there.

Gradient descent with a large step oscillates; the minimum that gradient *flow* would reach from where it stands is a
smoother witness of where it is going. Runge-Kutta of order four follows the flow; its step is bounded by the sharpness,
as its region of stability ends at 2.78.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from covector.curvature import Hessian
from covector.errors import ArgumentError, NonFiniteError
from covector.landscape.sharpness import Sharpness
from covector.linalg.lanczos import norms
from covector.objective import Batch, Objective
from covector.trees import Params, clone, flatten, unflatten

__all__ = ["Flow", "gfs_sharpness", "gradient_flow"]

STABLE = 2.785  # the end of the stability region of classical Runge-Kutta on the negative axis


class Flow(NamedTuple):
    """Where gradient flow ended.

    Attributes:
        params: the end point, a copy.
        loss: there.
        gradient_norm: there.
        time: that the flow took.
        steps: of the integrator.
        converged: whether the loss or the gradient fell below its tolerance.
        sharpness: the largest eigenvalue of the Hessian there.
    """

    params: Params
    loss: float
    gradient_norm: float
    time: float
    steps: int
    converged: bool
    sharpness: float


def gradient_flow(
    objective: Objective,
    batch: Batch,
    params: Params | None = None,
    *,
    alpha: float = 0.5,
    max_step: float = float("inf"),
    tol_loss: float = 1e-8,
    tol_gradient: float = 1e-7,
    every: int = 20,
    max_steps: int = 20_000,
    end: float = float("inf"),
) -> Flow:
    """Follow ``d theta / dt = - grad L(theta)`` to its end, by Runge-Kutta of order four.

    Args:
        objective: the loss; squared errors have an end, cross entropy runs off to infinity and needs ``end``.
        batch: all of the data, one batch.
        params: where to start (default: the live parameters, which are left alone).
        alpha: step of the integrator in units of one over the sharpness (default 0.5: an error of 4e-4 a step in the
            sharpest direction, which dies out; stable below 2.78).
        max_step: the longest step (default: no limit).
        tol_loss: stop at this loss (default 1e-8).
        tol_gradient: stop at this norm of the gradient (default 1e-7).
        every: steps between measurements of the sharpness (default 20).
        max_steps: most steps (default 20 000, of four gradients each).
        end: stop at this time.

    Returns:
        A :class:`Flow`.

    Raises:
        ArgumentError: ``alpha`` outside of (0, 2.78), ``every`` or ``max_steps`` below 1.
        NonFiniteError: the loss is not finite on the way.

    >>> bowl = Objective.from_function(lambda p, batch: (p["x"] ** 2 * batch).sum(), {"x": torch.ones(2)})
    >>> flow = gradient_flow(bowl, torch.tensor([1.0, 2.0]), alpha=0.2, tol_loss=0.0, end=0.5)
    >>> [round(x, 3) for x in flow.params["x"].tolist()], round(flow.sharpness, 3)  # exp(-1), exp(-2)
    ([0.368, 0.135], 4.0)
    """
    if not 0.0 < alpha < STABLE:
        raise ArgumentError("alpha", alpha, f"a number between 0 and {STABLE}, where Runge-Kutta is stable")
    if every < 1 or max_steps < 1:
        raise ArgumentError("every, max_steps", (every, max_steps), "whole numbers of at least 1")
    start = objective.params if params is None else params
    flat = flatten(start)
    here = unflatten(flat, clone(start))
    copy = Objective.from_function(lambda chosen, data: objective(data, chosen), here)
    sharpness = Sharpness(Hessian(copy, batch), tol=1e-2)
    loss, slope = _slope(objective, batch, flat, start)
    time, step, steps, converged = 0.0, 0.0, 0, False
    while not (converged := loss <= tol_loss or _norm(slope) <= tol_gradient) and steps < max_steps and time < end:
        if steps % every == 0:
            curvature = sharpness.measure()
            step = min(alpha / curvature if curvature > 0 else max_step, max_step)
            if step == float("inf"):
                raise ArgumentError("max_step", max_step, f"a finite number: the sharpness is {curvature:.3g} here")
        h = min(step, end - time)
        k2 = _slope(objective, batch, flat + 0.5 * h * slope, start)[1]
        k3 = _slope(objective, batch, flat + 0.5 * h * k2, start)[1]
        k4 = _slope(objective, batch, flat + h * k3, start)[1]
        flat += (h / 6) * (slope + 2 * k2 + 2 * k3 + k4)
        loss, slope = _slope(objective, batch, flat, start)
        time, steps = time + h, steps + 1
    sharpness.tol = 1e-4
    return Flow(clone(here), loss, _norm(slope), time, steps, converged, sharpness.measure())


def gfs_sharpness(objective: Objective, batch: Batch, params: Params | None = None, **options: float) -> float:
    """The sharpness of the gradient flow solution: of the Hessian at the end of :func:`gradient_flow`.

    Gradient descent never increases it on scalar networks (a theorem), and hardly ever in practice, even while its loss
    oscillates.

    Args:
        objective: a squared error.
        batch: all of the data.
        params: where to start (default: the live parameters).
        options: of :func:`gradient_flow`.

    Returns:
        The largest eigenvalue.

    Raises:
        ArgumentError: the flow has no end within ``max_steps``.

    Source: Kreisler, Nacson, Soudry, Carmon, "Gradient descent monotonically decreases the sharpness of gradient flow
    solutions in scalar networks and beyond" (ICML 2023).

    >>> network = Objective.from_function(lambda p, _: 0.5 * (p["w"].prod() - 1) ** 2, {"w": torch.tensor([2.0, 0.25])})
    >>> round(gfs_sharpness(network, None), 2)
    4.42
    """
    flow = gradient_flow(objective, batch, params, **options)  # type: ignore[arg-type]
    if not flow.converged:
        raise ArgumentError(
            "max_steps", flow.steps, f"more steps, or larger tolerances: loss {flow.loss:.3g}, "
            f"gradient {flow.gradient_norm:.3g} at time {flow.time:.3g}"
        )  # fmt: skip
    return flow.sharpness


def _slope(objective: Objective, batch: Batch, flat: Tensor, like: Params) -> tuple[float, Tensor]:
    point = {name: view.requires_grad_() for name, view in unflatten(flat.detach(), like).items()}
    with torch.enable_grad():
        loss = objective(batch, point)
    value = loss.item()
    if value != value or value == float("inf"):
        raise NonFiniteError(f"the loss is {value} on the way of gradient flow; start from a point where it is finite")
    found = torch.autograd.grad(loss, list(point.values()), allow_unused=True)
    slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(point.values(), found, strict=True)]
    return value, -torch.cat([g.reshape(-1) for g in slopes])


def _norm(vector: Tensor) -> float:
    return float(norms(vector[None])[0])
