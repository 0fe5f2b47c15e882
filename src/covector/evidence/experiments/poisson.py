"""``-u_xx - u_yy = 2 pi^2 sin(pi x) sin(pi y)`` on the unit square, by a network, as an energy or as a residual."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from covector.objective import Objective
from covector.optim import Adam
from covector.trees import Params, clone

__all__ = ["Form", "error", "problem", "trained"]

Form = Literal["Galerkin", "Ritz"]
# value, first and second derivative along one axis
Jet = tuple[Tensor, Tensor, Tensor]


def problem(form: Form, seed: int, width: int = 20) -> Objective:
    """The loss of ``x (1 - x) y (1 - y) N(x, y)``, N a tanh network 2-20-20-1, over points ``[n, 2]``.

    ``"Galerkin"``: the mean square of the residual (the deep Galerkin method); ``"Ritz"``: the mean of
    ``|grad u|^2 / 2 - f u`` (the deep Ritz method).
    """
    generator = torch.Generator().manual_seed(seed)
    params = {}
    for name, (rows, columns) in {"a": (width, 2), "b": (width, width), "c": (1, width)}.items():
        params[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) * math.sqrt(2 / (rows + columns))
        params[f"{name}.bias"] = torch.zeros(rows)

    def loss(params: Params, points: Tensor) -> Tensor:
        (u, ux, uxx), (_, uy, uyy) = solution(params, points, 0), solution(params, points, 1)
        source = 2 * math.pi**2 * (math.pi * points).sin().prod(1)
        if form == "Galerkin":
            return (uxx + uyy + source).square().mean()
        return (0.5 * (ux.square() + uy.square()) - source * u).mean()

    return Objective.from_function(loss, {name: p.requires_grad_() for name, p in params.items()})


def solution(params: Params, points: Tensor, axis: int) -> Jet:
    """u and its derivatives along an axis at points ``[n, 2]``: derivatives are carried through the layers."""
    moved = torch.zeros_like(points)
    moved[:, axis] = 1.0
    jet = points, moved, torch.zeros_like(points)
    for name in ("a", "b"):
        jet = tanh(linear(params, name, jet))
    n, n1, n2 = (part[:, 0] for part in linear(params, "c", jet))
    along, other = points[:, axis], points[:, 1 - axis]
    edge = other * (1 - other)
    b, b1, b2 = along * (1 - along) * edge, (1 - 2 * along) * edge, -2 * edge
    return b * n, b1 * n + b * n1, b2 * n + 2 * b1 * n1 + b * n2


def linear(params: Params, name: str, jet: Jet) -> Jet:
    """A layer: the bias enters the value only."""
    weight = params[f"{name}.weight"].T
    return jet[0] @ weight + params[f"{name}.bias"], jet[1] @ weight, jet[2] @ weight


def tanh(jet: Jet) -> Jet:
    """``tanh`` of a value and its derivatives."""
    value = jet[0].tanh()
    slope = 1 - value.square()
    return value, slope * jet[1], slope * (jet[2] - 2 * value * jet[1].square())


def trained(
    objective: Objective, points: Tensor, steps: int, keep: tuple[int, ...], fresh: bool = False
) -> dict[int, Params]:
    """Copies of the parameters at some of the steps of Adam at 1e-2; ``fresh`` draws other points for each step."""
    optimizer = Adam(list(objective.params.values()), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    kept = {}
    for step in range(steps + 1):
        if step in keep:
            kept[step] = clone(objective.params)
        optimizer.zero_grad()
        objective(torch.rand(points.shape, generator=generator) if fresh else points).backward()
        optimizer.step()
    return kept


@torch.no_grad()
def error(params: Params) -> float:
    """Relative error of the solution on a grid, in the root mean square."""
    side = torch.linspace(0, 1, 33)
    points = torch.cartesian_prod(side, side)
    exact = (math.pi * points).sin().prod(1)
    return float((solution(params, points, 0)[0] - exact).norm() / exact.norm())
