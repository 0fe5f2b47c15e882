"""The path of training, projected on the plane in which most of it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.spectral import symmetric_eigh
from covector.trees import Params, check_same, clone, flatten, unflatten

__all__ = ["Projection", "project_trajectory"]


class Projection(NamedTuple):
    """Checkpoints in the coordinates of their first principal components.

    Attributes:
        center: the origin of the coordinates.
        directions: orthonormal rows ``[k, n]``, the first of most variance.
        coordinates: of the checkpoints, float64 ``[T, k]``.
        explained: share of the squared distances to the center that each direction holds, float64 ``[k]``.
    """

    center: Params
    directions: Tensor
    coordinates: Tensor
    explained: Tensor

    def grid(self, points: int = 25, margin: float = 0.25) -> tuple[Tensor, Tensor]:
        """``across`` and ``up`` of a plane along the first two directions that holds all checkpoints.

        Args:
            points: for each side (default 25).
            margin: around the checkpoints, as a fraction of their extent (default 0.25).

        >>> path = [{"w": torch.tensor([t, 0.0, 0.5 * t * t])} for t in (0.0, 1.0, 2.0)]
        >>> x, y = project_trajectory(path).grid(points=3)
        >>> x.shape, y.shape
        (torch.Size([3]), torch.Size([3]))
        """
        sides = []
        for column in self.coordinates[:, :2].mT:
            low, high = float(column.min()), float(column.max())
            room = margin * max(high - low, 0.1 * float(self.coordinates.abs().max()))
            sides.append(torch.linspace(low - room, high + room, points, dtype=torch.float64))
        return sides[0], sides[1]


def project_trajectory(checkpoints: Sequence[Params], k: int = 2, center: str = "last") -> Projection:
    """Principal components of a path.

    How much of a path they explain says little by itself: about its mean, the first two hold 76 % of a random walk in a
    space of many dimensions (60.8 % and 15.2 %).

    Args:
        checkpoints: T copies of the parameters along training, more than ``k``.
        k: directions (default 2).
        center: ``"last"`` (default): distances from the last checkpoint count, so that it is the origin, as in the
            source; ``"mean"``: distances from the mean, which is what principal components are.

    Returns:
        A :class:`Projection`; ``plane(objective, batches, found.directions, *found.grid(), center=found.center)`` is
        the loss around it.

    Raises:
        ArgumentError: too few checkpoints, an unknown center, or all checkpoints are the same.
        MismatchError: they name different tensors.

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets" (NeurIPS 2018),
    section 7; Antognini, Sohl-Dickstein, "PCA of high dimensional random walks with comparison to neural network
    training" (NeurIPS 2018).

    >>> path = [{"w": torch.tensor([t, 2 * t, 0.0])} for t in (0.0, 1.0, 5.0)]
    >>> found = project_trajectory(path, k=1)
    >>> [round(abs(float(c)), 3) for c in found.coordinates[:, 0]], round(float(found.explained[0]), 3)
    ([11.18, 8.944, 0.0], 1.0)
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError("k", k, "a whole number of at least 1")
    if len(checkpoints) <= k:
        raise ArgumentError("checkpoints", f"{len(checkpoints)} of them", f"more than k = {k}")
    if center not in ("last", "mean"):
        raise ArgumentError("center", center, "'last' or 'mean'")
    for checkpoint in checkpoints[1:]:
        check_same(checkpoints[0], checkpoint, ("the first checkpoint", "another"))
    rows = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    work = torch.promote_types(rows.dtype, torch.float32)
    middle = rows[-1].to(work) if center == "last" else rows.mean(dim=0, dtype=torch.float64).to(work)
    away = rows.to(work) - middle
    # T x T instead of n x n: the same components, for far fewer checkpoints than parameters
    values, vectors = symmetric_eigh(_products(away, away))
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    total = float(values.sum())
    if not total > 0:
        raise ArgumentError("checkpoints", "all the same", "checkpoints that differ")
    directions = torch.linalg.qr(away.mT @ vectors[:, :k].to(work)).Q.mT.contiguous()
    coordinates = _products(away, directions)
    origin = clone(unflatten(middle.to(rows.dtype), checkpoints[0]))
    return Projection(origin, directions, coordinates, coordinates.square().sum(0) / _squares(away))


def _products(a: Tensor, b: Tensor, block: int = 1 << 20) -> Tensor:
    """``a b^T`` in float64, without float64 copies of all of them."""
    found = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for left, right in zip(a.split(block, dim=1), b.split(block, dim=1), strict=True):
        found += left.double() @ right.double().mT
    return found


def _squares(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dtype=torch.float64).square()
