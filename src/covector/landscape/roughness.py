"""The roughness index: how unlike the total variations of random slices are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Roughness", "roughness_index", "total_variation"]


@dataclass(frozen=True)
class Roughness:
    """Roughness of a set of slices.

    Args:
        index: deviation over mean of the variations.
        mean: their mean.
        deviation: their standard deviation, the sum of squares over M.
        variations: of each slice, ``[M]``.
    """

    index: float
    mean: float
    deviation: float
    variations: Tensor


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
        slices: losses ``[M, m]`` of :func:`slices`, at equispaced points of ``[-radius, radius]``.
        radius: half the length of a slice.
        normalize: as for :func:`total_variation`.

    Returns:
        The index and what it is made of.

    Raises:
        ArgumentError: as :func:`total_variation`, or slices that do not vary at all and are not normalized.

    Source: "Roughness index for loss landscapes of neural network models of partial differential equations", 2021.

    >>> s = torch.linspace(-1, 1, 101, dtype=torch.float64)
    >>> round(roughness_index(torch.stack([s, s**2]), radius=1.0).index, 4)
    0.3333
    """
    variations = total_variation(slices, radius, normalize)
    mean, deviation = float(variations.mean()), float(variations.std(unbiased=False))
    if not mean > 0.0:
        raise ArgumentError("slices", mean, "losses that vary along a slice, or normalize=True")
    return Roughness(deviation / mean, mean, deviation, variations)
