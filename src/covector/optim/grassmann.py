"""Points and moves on the Grassmannian: subspaces of R^m, each given by an orthonormal basis ``S [m, r]``."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.linalg.orthonormalize import orthonormalize, reorthonormalize

__all__ = ["captured_energy", "geodesic", "leading", "principal_angles", "random_point", "tangent", "track", "walk"]


def leading(matrix: Tensor, rank: int) -> Tensor:
    """The span of the leading left singular vectors of ``matrix [m, n]``: ``[m, rank]``.

    >>> leading(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1).abs()
    tensor([[1.],
            [0.]])
    """
    # not by the Gram matrix, whose small eigenvectors are lost to rounding
    chosen: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank].contiguous()
    return chosen


def random_point(normal: Tensor) -> Tensor:
    """The span of a matrix of independent normal numbers ``[m, r]``: uniform on the Grassmannian.

    >>> s = random_point(torch.randn(6, 2))
    >>> torch.allclose(s.T @ s, torch.eye(2), atol=1e-5)
    True
    """
    return orthonormalize(normal, check=False).contiguous()


def tangent(s: Tensor, direction: Tensor) -> Tensor:
    """The part of ``direction [m, r]`` that leaves the subspace: ``X - S S^T X``.

    >>> tangent(torch.tensor([[1.0], [0.0]]), torch.tensor([[5.0], [2.0]]))
    tensor([[0.],
            [2.]])
    """
    return direction - s @ (s.mT @ direction)


def geodesic(s: Tensor, u: Tensor, angles: Tensor, v: Tensor) -> Tensor:
    """Follow the geodesic of the tangent ``U diag(angles) V^T`` for a unit of time.

    ``S (I - V V^T) + (S V cos + U sin) V^T``; Edelman, Arias and Smith 1998, Theorem 2.3.

    Args:
        s: the point ``[m, r]``.
        u: orthonormal directions ``[m, k]`` orthogonal to ``s``.
        angles: ``[k]``, radians.
        v: which directions of the subspace turn, ``[r, k]``.

    >>> e = torch.eye(2)
    >>> geodesic(e[:, :1], e[:, 1:], torch.tensor([torch.pi / 6]), torch.ones(1, 1))
    tensor([[0.8660],
            [0.5000]])
    """
    return reorthonormalize(s + (s @ v * (angles.cos() - 1) + u * angles.sin()) @ v.mT)


def walk(s: Tensor, normal: Tensor, angle: float) -> Tensor:
    """A random step: along the tangent part of normal numbers ``[m, r]``, the largest principal angle as given.

    >>> s = walk(torch.eye(5)[:, :2], torch.randn(5, 2), angle=0.3)
    >>> round(float(principal_angles(s, torch.eye(5)[:, :2])[0]), 4)
    0.3
    """
    u, sigma, vh = torch.linalg.svd(tangent(s, normal), full_matrices=False)
    return geodesic(s, u, angle * sigma / sigma[0], vh.mT)


def track(s: Tensor, matrix: Tensor, angle: float) -> Tensor:
    """A step down the gradient of ``||G - S S^T G||^2`` by the subspace, of rank one, by an angle.

    Source: Rajabi et al., "SubTrack++", 2025; there the angle is a step size times the singular value.

    >>> s, g = torch.eye(2)[:, :1], torch.ones(2, 3)
    >>> bool(captured_energy(track(s, g, 0.1), g) > captured_energy(s, g))
    True
    """
    inside = s.mT @ matrix
    u, sigma, vh = torch.linalg.svd((matrix - s @ inside) @ inside.mT, full_matrices=False)
    # a gradient that lies inside already leaves rounding errors for a direction
    turn = torch.where(sigma[:1] > 16 * torch.finfo(s.dtype).eps * matrix.square().sum(), angle, 0.0)
    return geodesic(s, u[:, :1], turn, vh[:1].mT)


def principal_angles(s: Tensor, other: Tensor) -> Tensor:
    """Angles between two subspaces ``[m, r]``, radians, largest first; their root sum of squares is the distance.

    >>> principal_angles(torch.eye(3)[:, :2], torch.eye(3)[:, :2]).abs().max() < 1e-6
    tensor(True)
    """
    # the cosine loses small angles, the sine large ones
    sine = torch.linalg.svdvals(tangent(s, other)).clamp(max=1.0)
    cosine = torch.linalg.svdvals(s.mT @ other).clamp(max=1.0).flip(-1)
    return torch.atan2(sine, cosine)


def captured_energy(s: Tensor, matrix: Tensor) -> Tensor:
    """The share of a gradient's square norm inside a subspace: ``||S^T G||^2 / ||G||^2``.

    Args:
        s: basis ``[m, r]``.
        matrix: a gradient whose shorter side is m; convolutions count as ``[shape[0], -1]``.

    >>> captured_energy(torch.eye(3)[:, :1], torch.ones(3, 4))
    tensor(0.3333)
    """
    g = matrix.flatten(1)
    g = g if g.shape[0] <= g.shape[1] else g.mT
    return (s.mT @ g).square().sum() / g.square().sum()
