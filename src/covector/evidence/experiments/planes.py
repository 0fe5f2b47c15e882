"""Functions of two variables on which optimizers are watched, with their gradients, and the walk of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["BEALE", "BEALE_MINIMUM", "SADDLE", "Plane", "arc", "walk"]

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Plane:
    """A function of a point ``[2]``, its gradient, and where walks begin and should end."""

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    done: Callable[[Tensor], bool]


def _beale(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _beale_gradient(point: Tensor) -> Tensor:
    x, y = point.tolist()
    parts = [(1.5 - x + x * y, y - 1, x), (2.25 - x + x * y**2, y**2 - 1, 2 * x * y)]
    parts.append((2.625 - x + x * y**3, y**3 - 1, 3 * x * y**2))
    return torch.tensor([sum(2 * r * a for r, a, _ in parts), sum(2 * r * b for r, _, b in parts)], dtype=point.dtype)


BEALE_MINIMUM = torch.tensor([3.0, 0.5], dtype=torch.float64)
BEALE = Plane(_beale, _beale_gradient, (1.0, 1.5), lambda p: bool((p - BEALE_MINIMUM).norm() < 0.1))
SADDLE = Plane(
    lambda p: p[..., 0] ** 2 - p[..., 1] ** 2,
    lambda p: p * torch.tensor([2.0, -2.0], dtype=p.dtype),
    (1.0, 1e-3),
    lambda p: abs(float(p[1])) > 1.0,
)


def walk(plane: Plane, make: Make, limit: int, start: tuple[float, float] | None = None) -> tuple[Tensor, bool]:
    """The points ``[steps + 1, 2]`` of a walk in float64, and whether it arrived; it ends there, or far away."""
    point = nn.Parameter(torch.tensor(start or plane.start, dtype=torch.float64))
    optimizer, points = make([point]), [point.detach().clone()]
    while len(points) <= limit:
        point.grad = plane.gradient(point.detach())
        optimizer.step()
        points.append(point.detach().clone())
        if plane.done(point.detach()):
            return torch.stack(points), True
        if not float(point.detach().abs().max()) < 1e3:
            break
    return torch.stack(points), False


def arc(points: Tensor) -> float:
    """Length of a path over the distance of its ends: 1 for a straight one."""
    return float((points[1:] - points[:-1]).norm(dim=1).sum() / (points[-1] - points[0]).norm())
