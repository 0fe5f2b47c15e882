"""The roughness index: how unlike the total variations of random slices are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.landscape.directions import filter_normalized, random_directions
from covector.landscape.slices import slices, symmetric_grid
from covector.objective import Objective
from covector.trees import Params

__all__ = ["Roughness", "roughness", "roughness_index", "total_variation"]


@dataclass(frozen=True)
class Roughness:
    """Roughness of a set of slices.

    Args:
        index: deviation over mean of the variations.
        mean: their mean.
        deviation: their standard deviation, the sum of squares over M.
        variations: of each slice, ``[M]``.
        error: standard error of the index over the choice of directions, leaving out one at a time; NaN for two.
    """

    index: float
    mean: float
    deviation: float
    variations: Tensor
    error: float


def total_variation(slices: Tensor, radius: float, normalize: bool = True) -> Tensor:
    """The sum of all rises and falls of each slice, per unit of length.

    Args:
        slices: losses ``[M, m]`` at equispaced points of ``[-radius, radius]``.
        radius: half the length of a slice.
        normalize: divide by the range of the slice too: 1 / (2 radius) for one that only rises, 1 / radius for a
            symmetric valley, whatever the scale of the loss; a slice without a range counts as one that only rises.

    Returns:
        ``[M]``.

    Raises:
        ArgumentError: fewer than two points, or a radius that is not above 0.

    >>> s = torch.linspace(-1, 1, 101, dtype=torch.float64)
    >>> total_variation(torch.stack([3 * s, s**2 + 5]), radius=1.0)
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if slices.ndim != 2 or slices.shape[1] < 2:
        raise ArgumentError("slices.shape", tuple(slices.shape), "[M, m] with at least two points a slice")
    if not 0.0 < radius < float("inf"):
        raise ArgumentError("radius", radius, "a finite number above 0")
    rises = slices.diff(dim=1).abs().sum(1) / (2 * radius)
    if not normalize:
        return rises
    span = slices.amax(1) - slices.amin(1)
    flat = span <= torch.finfo(slices.dtype).eps * slices.abs().amax(1)
    return torch.where(flat, 1 / (2 * radius), rises / span.masked_fill(flat, 1.0))


def roughness_index(slices: Tensor, radius: float, normalize: bool = True) -> Roughness:
    """Standard deviation over mean of the total variations of slices in random directions.

    It depends strongly on the radius: report several.

    Args:
        slices: losses ``[M, m]`` of :func:`~covector.landscape.slices`, at equispaced points of ``[-radius, radius]``.
        radius: half the length of a slice.
        normalize: as for :func:`total_variation`.

    Returns:
        The index and what it is made of.

    Raises:
        ArgumentError: as :func:`total_variation`, fewer than two slices, or slices that do not vary at all and are not
            normalized.
        NonFiniteError: a loss is NaN or infinite.

    Source: "Roughness index for loss landscapes of neural network models of partial differential equations", 2021.

    >>> s = torch.linspace(-1, 1, 101, dtype=torch.float64)
    >>> round(roughness_index(torch.stack([s, s**2]), radius=1.0).index, 4)
    0.3333
    """
    if not bool(slices.isfinite().all()):
        raise NonFiniteError("the loss is not finite at every point of the slices; take a smaller radius")
    variations = total_variation(slices, radius, normalize)
    if len(variations) < 2:
        raise ArgumentError("slices", f"{len(variations)} of them", "at least two")
    mean, deviation = float(variations.mean()), float(variations.std(unbiased=False))
    if not mean > 0.0:
        raise ArgumentError("slices", mean, "losses that vary along a slice, or normalize=True")
    return Roughness(deviation / mean, mean, deviation, variations, _jackknife(variations))


def roughness(
    objective: Objective,
    batches: Any,
    radius: float = 1.0,
    directions: int = 50,
    points: int = 51,
    *,
    center: Params | None = None,
    normalize: bool = True,
    filters: bool = False,
    seed: int = 0,
    **options: Any,
) -> Roughness:
    """The roughness index along random directions from the parameters; nothing is changed.

    Args:
        objective: the loss.
        batches: one batch, a list of batches or a loader that can be read again; the same for all points.
        radius: half the length of a slice: the index depends strongly on it, report several (default 1).
        directions: how many (default 50); the error falls with the square root of their number.
        points: of a slice, odd (default 51).
        center: where to look (default: the live parameters).
        normalize: as for :func:`total_variation`.
        filters: whether directions are :func:`~covector.landscape.filter_normalized`; default: uniform on the unit
            sphere of all parameters, as in the source.
        seed: of the directions, and of anything random in the loss.
        options: ``chunk`` and ``memory`` of :func:`~covector.landscape.slices`.

    Raises:
        ArgumentError: an even number of points, fewer than two directions.
        NonFiniteError: a loss is NaN or infinite.

    >>> bowl = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(9)})
    >>> found = roughness(bowl, None, directions=8)  # every line through the bottom looks the same
    >>> round(found.mean, 4), round(found.index, 4)
    (1.0, 0.0)
    """
    origin = dict(objective.params) if center is None else center
    rows = random_directions(origin, directions, seed)
    if filters:
        rows = filter_normalized(rows, origin)
    at = symmetric_grid(radius, points)
    return roughness_index(slices(objective, batches, rows, at, center=center, seed=seed, **options), radius, normalize)


def _jackknife(values: Tensor) -> float:
    """Standard error of deviation / mean."""
    count = len(values)
    if count < 3:
        return math.nan
    mean = (values.sum() - values) / (count - 1)
    square = ((values**2).sum() - values**2) / (count - 1)
    without = (square - mean**2).clamp_min(0.0).sqrt() / mean
    return math.sqrt((count - 1) / count * float((without - without.mean()).square().sum()))
