"""Straight slices and planes through the parameters: many points of the loss at once, the model left alone.

Directions are rows ``[M, n]`` in the order of ``objective.params``: eigenvectors, differences of checkpoints, random
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.objective import Batch, Objective
from covector.random import Stream, draw
from covector.trees import Params, flatten, numel

__all__ = ["Plane", "filter_normalized", "plane", "principal_plane", "random_directions", "slices"]


@torch.no_grad()
def slices(
    objective: Objective,
    batch: Batch,
    directions: Tensor,
    at: Sequence[float] | Tensor,
    *,
    center: Params | None = None,
    chunk: int = 32,
) -> Tensor:
    """The loss at ``center + s d`` for each direction d and each s, on one batch.

    Args:
        objective: the loss.
        batch: one batch, the same at all points, so that what varies is the loss and not the sample.
        directions: rows ``[M, n]``.
        at: values of s, ``[m]``.
        center: where s is 0; default the live parameters, which do not change.
        chunk: at most so many points at a time, as one vectorized evaluation; 1: one after another, for models with
            operations that ``vmap`` does not know.

    Returns:
        Float64 ``[M, m]`` on the CPU.

    Raises:
        MismatchError: directions of another length than the parameters.
        ArgumentError: ``chunk`` out of range.
        CompositionError: a batch normalization in training mode, whose statistics an evaluation would change.

    >>> bowl = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(2)})
    >>> slices(bowl, None, torch.eye(2), [-1.0, 0.0, 2.0])
    tensor([[1., 0., 4.],
            [1., 0., 4.]], dtype=torch.float64)
    """
    _check(objective, chunk)
    origin = objective.params if center is None else center
    flat = flatten(origin)
    if directions.ndim != 2 or directions.shape[1] != len(flat):
        raise MismatchError(f"directions has shape {tuple(directions.shape)}; expected [M, {len(flat)}], rows")
    steps = torch.as_tensor(at, dtype=flat.dtype, device=flat.device)
    rows = directions.to(flat)
    count = len(rows) * len(steps)

    def evaluate(places: Tensor) -> Tensor:
        points = flat + steps[places % len(steps), None] * rows[places // len(steps)]
        if chunk == 1:
            return objective(batch, _shaped(points[0], origin)).reshape(1)
        losses: Tensor = vmap(lambda point: objective(batch, _shaped(point, origin)))(points)
        return losses

    found = [evaluate(places) for places in torch.arange(count, device=flat.device).split(chunk)]
    return torch.cat(found).double().cpu().reshape(len(rows), len(steps))


def plane(
    objective: Objective,
    batch: Batch,
    directions: Tensor,
    across: Sequence[float] | Tensor,
    up: Sequence[float] | Tensor,
    *,
    center: Params | None = None,
    chunk: int = 32,
) -> Tensor:
    """The loss at ``center + a d1 + b d2``: a slice along d1 for each b.

    Args:
        objective: the loss.
        batch: one batch, the same at all points.
        directions: two rows ``[2, n]``, such as two eigenvectors of the Hessian.
        across: values of a.
        up: values of b.
        center: where both are 0; default the live parameters.
        chunk: as for :func:`slices`.

    Returns:
        Float64 ``[len(up), len(across)]``.

    Raises:
        MismatchError, ArgumentError, CompositionError: as :func:`slices`.

    >>> bowl = Objective.from_function(lambda p, batch: p["x"][0] + 10 * p["x"][1], {"x": torch.zeros(2)})
    >>> plane(bowl, None, torch.eye(2), across=[0.0, 1.0, 2.0], up=[0.0, 1.0])
    tensor([[ 0.,  1.,  2.],
            [10., 11., 12.]], dtype=torch.float64)
    """
    if directions.ndim != 2 or len(directions) != 2:
        raise MismatchError(f"directions has shape {tuple(directions.shape)}; expected two rows, [2, n]")
    origin = objective.params if center is None else center
    lines = []
    for b in torch.as_tensor(up, dtype=torch.float64).tolist():
        moved = _shaped(flatten(origin).detach() + b * directions[1].to(flatten(origin)), origin)
        lines.append(slices(objective, batch, directions[:1], across, center=moved, chunk=chunk))
    return torch.cat(lines)


def random_directions(params: Params, count: int, seed: int = 0) -> Tensor:
    """Unit vectors, uniform on the sphere over all parameters: rows ``[count, n]``.

    >>> bool((random_directions({"w": torch.zeros(3, 4)}, 5).norm(dim=1) - 1).abs().max() < 1e-6)
    True
    """
    like = next(iter(params.values()))
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    size = numel(params)
    rows = draw(seed, "directions", count * size, "normal", 0, Stream.DIRECTIONS, 0, kind, like.device)
    rows = rows.reshape(count, size)
    return rows / rows.norm(dim=1, keepdim=True)


def filter_normalized(directions: Tensor, params: Params) -> Tensor:
    """Scale each filter of each direction to the norm of the parameters' own; vectors (biases, norms' scales) become 0.

    A network's loss does not change when one layer is scaled up and the next one down, so that distances mean something
    only relative to the weights.

    Args:
        directions: rows ``[M, n]``.
        params: the center.

    Returns:
        ``[M, n]``.

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets", 2018.

    >>> rows = filter_normalized(torch.ones(1, 6), {"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "b": torch.ones(2)})
    >>> rows
    tensor([[3.5355, 3.5355, 0.7071, 0.7071, 0.0000, 0.0000]])
    """
    parts = []
    for part, param in zip(directions.split([p.numel() for p in params.values()], 1), params.values(), strict=True):
        if param.ndim < 2:
            parts.append(torch.zeros_like(part))
            continue
        filters = part.reshape(len(part), len(param), -1)
        own = param.detach().reshape(len(param), -1).norm(dim=1)
        length = filters.norm(dim=2, keepdim=True).clamp_min(torch.finfo(part.dtype).tiny)
        parts.append((filters / length * own[:, None]).reshape(part.shape))
    return torch.cat(parts, 1)


class Plane(NamedTuple):
    """The plane in which a trajectory moves most: two rows, the places on it, and the share of the movement inside."""

    directions: Tensor
    places: Tensor
    share: float


def principal_plane(trajectory: Sequence[Params]) -> Plane:
    """Principal components of a trajectory, about its last point.

    Args:
        trajectory: parameters along training, at least three.

    Returns:
        Orthonormal directions ``[2, n]``, places ``[points, 2]``, and the share of the squared distances they hold.

    Raises:
        ArgumentError: fewer than three points.

    >>> path = [{"w": torch.tensor([float(t), 2.0 * t, float(t * t)])} for t in range(4)]
    >>> round(principal_plane(path).share, 4)
    1.0
    """
    if len(trajectory) < 3:
        raise ArgumentError("trajectory", len(trajectory), "at least three points")
    points = torch.stack([flatten(point).detach() for point in trajectory])
    moved = points - points[-1]
    _, sizes, rows = torch.linalg.svd(moved, full_matrices=False)
    inside = sizes[:2].square().sum() / sizes.square().sum().clamp_min(torch.finfo(sizes.dtype).tiny)
    return Plane(rows[:2], moved @ rows[:2].T, float(inside))


def _shaped(flat: Tensor, like: Params) -> Params:
    """Views of a vector with the names, shapes and dtypes of parameters; works under ``vmap``."""
    parts = flat.split([p.numel() for p in like.values()])
    return {name: part.reshape(p.shape).to(p.dtype) for (name, p), part in zip(like.items(), parts, strict=True)}


def _check(objective: Objective, chunk: int) -> None:
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ArgumentError("chunk", chunk, "a whole number of points of at least 1")
    for name, module in objective.module.named_modules() if objective.module is not None else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise CompositionError(
                f"{name} is in training mode: looking would change its statistics; call eval() first"
            )
