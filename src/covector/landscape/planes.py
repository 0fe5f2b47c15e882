"""The loss on a plane: along two directions, or through three checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.landscape.slices import losses_at, named
from covector.objective import Objective
from covector.trees import Params, axpy_, check_same, clone, dot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plane", "contours", "plane", "plane_through"]


class Plane(NamedTuple):
    """The loss on the plane through three checkpoints.

    Attributes:
        across: coordinates on the first axis, float64 ``[a]``.
        up: on the second, ``[b]``.
        losses: float64 ``[b, a]``, rows of equal ``up``.
        marks: coordinates of the checkpoints, ``[3, 2]``.
        marked: the loss at their very bits, ``[3]``.
    """

    across: Tensor
    up: Tensor
    losses: Tensor
    marks: Tensor
    marked: Tensor


def plane(
    objective: Objective,
    batches: Any,
    directions: Tensor,
    across: Sequence[float] | Tensor,
    up: Sequence[float] | Tensor,
    *,
    center: Params | None = None,
    **options: Any,
) -> Tensor:
    """The loss at ``center + a d1 + b d2`` on a grid; nothing is changed.

    Args:
        objective: the loss.
        batches: one batch, a list of batches or a loader that can be read again; the same at all points.
        directions: two rows ``[2, n]``, such as two eigenvectors of the Hessian, ``eigsh(hessian, 2).vectors.mT``.
        across: values of a.
        up: values of b.
        center: where both are 0 (default: the live parameters).
        options: ``chunk``, ``memory`` and ``seed`` of :func:`slices`.

    Returns:
        Float64 ``[len(up), len(across)]``, on the CPU.

    Raises:
        MismatchError, ArgumentError, UnsupportedError: as :func:`slices`.

    >>> bowl = Objective.from_function(lambda p, batch: p["x"][0] + 10 * p["x"][1], {"x": torch.zeros(2)})
    >>> plane(bowl, None, torch.eye(2), across=[0.0, 1.0, 2.0], up=[0.0, 1.0])
    tensor([[ 0.,  1.,  2.],
            [10., 11., 12.]], dtype=torch.float64)
    """
    if directions.ndim != 2 or len(directions) != 2:
        raise MismatchError(f"directions has shape {tuple(directions.shape)}; expected two rows, [2, n]")
    rows, columns = _grid(torch.as_tensor(across), torch.as_tensor(up))
    weights = torch.stack([torch.ones_like(rows), columns, rows], dim=-1)
    origin = dict(objective.params) if center is None else center
    vectors = [origin, *named(directions, objective.params)]
    return losses_at(objective, batches, vectors, weights.view(-1, 3), **options).view(rows.shape)


def plane_through(
    objective: Objective,
    batches: Any,
    a: Params,
    b: Params,
    c: Params,
    points: int = 25,
    margin: float = 0.25,
    **options: Any,
) -> Plane:
    """The loss on the plane through three checkpoints, in its true proportions; nothing is changed.

    Args:
        objective: the loss.
        batches: one batch, a list of batches or a loader that can be read again.
        a: the origin of the coordinates.
        b: lies on the first axis, at its distance from ``a``.
        c: lies above that axis.
        points: for each side of the grid (default 25).
        margin: how far the grid goes beyond the checkpoints, as a fraction of its extent (default 0.25).
        options: ``chunk``, ``memory`` and ``seed`` of :func:`slices`.

    Returns:
        A :class:`Plane`.

    Raises:
        MismatchError: they name different tensors.
        ArgumentError: they lie on one line.

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss surfaces, mode connectivity, and fast ensembling of
    DNNs" (NeurIPS 2018), appendix.

    >>> bowl = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(2)})
    >>> a, b, c = ({"x": torch.tensor(point)} for point in ([0.0, 0.0], [2.0, 0.0], [1.0, 1.0]))
    >>> found = plane_through(bowl, None, a, b, c)
    >>> found.marks.tolist(), found.marked.tolist()
    ([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]], [0.0, 4.0, 2.0])
    """
    check_same(a, b)
    check_same(a, c, ("a", "c"))
    first, second = clone(b), clone(c)
    axpy_(first, a, -1.0)
    axpy_(second, a, -1.0)
    length = dot(first, first) ** 0.5
    along = dot(first, second) / length if length else 0.0
    height = max(dot(second, second) - along**2, 0.0) ** 0.5
    if not length or height <= 1e-6 * dot(second, second) ** 0.5:
        raise ArgumentError("a, b, c", "checkpoints on one line", "three that span a plane")
    marks = torch.tensor([[0.0, 0.0], [length, 0.0], [along, height]], dtype=torch.float64)
    across, up = (_padded(column, points, margin) for column in marks.mT)
    rows, columns = _grid(across, up)
    of_c = rows / height
    of_b = (columns - of_c * along) / length
    weights = torch.stack([1 - of_b - of_c, of_b, of_c], dim=-1).view(-1, 3)
    corners = torch.eye(3, dtype=torch.float64)
    losses = losses_at(objective, batches, [a, b, c], torch.cat([corners, weights]), **options)
    return Plane(across, up, losses[3:].view(rows.shape), marks, losses[:3])


def contours(
    axes: Axes,
    across: Sequence[float] | Tensor,
    up: Sequence[float] | Tensor,
    losses: Tensor,
    levels: int = 14,
    decades: float = 3.0,
) -> Any:
    """Draw the losses of a plane on a matplotlib pair of axes.

    Levels are evenly spaced in the logarithm of the height above the lowest point, so that a narrow valley and the
    walls around it can both be seen. What is not finite stays white.

    Args:
        axes: where to draw; everything else on it is the caller's.
        across: of the plane, ``[a]``.
        up: of the plane, ``[b]``.
        losses: ``[b, a]``.
        levels: how many.
        decades: the lowest level lies so many powers of ten below the height of the picture.

    Returns:
        The filled contours, for a color bar.

    Raises:
        ArgumentError: the losses are all the same, or none is finite.

    >>> from matplotlib.figure import Figure
    >>> x = torch.linspace(-1, 1, 5)
    >>> len(contours(Figure().subplots(), x, x, x**2 + x[:, None] ** 2, levels=4).levels)
    5
    """
    from matplotlib.colors import BoundaryNorm

    finite = losses[losses.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if not low < high:
        raise ArgumentError("losses", f"from {low} to {high}", "finite losses that differ")
    heights = torch.logspace(-decades, 0, levels, dtype=torch.float64).tolist()
    steps = [low, *(low + (high - low) * height for height in heights)]
    x, y = (torch.as_tensor(side).tolist() for side in (across, up))
    values = losses.masked_fill(~losses.isfinite(), float("nan")).tolist()
    axes.grid(False)
    filled = axes.contourf(x, y, values, levels=steps, cmap="cividis", norm=BoundaryNorm(steps, 256))
    axes.contour(x, y, values, levels=steps, colors="white", linewidths=0.4)
    return filled


def _grid(across: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(up.detach().double().cpu(), across.detach().double().cpu(), indexing="ij")
    return rows, columns


def _padded(values: Tensor, points: int, margin: float) -> Tensor:
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low)
    if points < 2 or not margin >= 0:
        raise MismatchError(f"points={points}, margin={margin}: expected at least 2 points and a margin of at least 0")
    return torch.linspace(low - room, high + room, points, dtype=torch.float64)
