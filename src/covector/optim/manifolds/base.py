"""What an optimizer asks of a manifold; every function takes any number of points at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from covector.errors import UnsupportedError

__all__ = ["Manifold"]


class Manifold(ABC):
    """A Riemannian manifold whose points are the last ``point_dims`` dimensions of a tensor.

    Two manifolds are equal where their types and constants are; an optimizer steps all points of equal manifolds
    as one batch. ``x`` and ``y`` are points, ``u`` and ``v`` tangent vectors at ``x``, all of one shape.
    """

    point_dims: ClassVar[int] = 1

    @abstractmethod
    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        """The Riemannian gradient: the tangent vector that represents a Euclidean derivative in the metric."""

    @abstractmethod
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The metric; the point's dimensions are kept with size 1."""

    @abstractmethod
    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        """Where the geodesic from ``x`` with velocity ``u`` is after a unit of time."""

    @abstractmethod
    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        """A cheaper path that agrees with :meth:`exp` to first order."""

    @abstractmethod
    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """The tangent vector at ``y`` that ``u`` becomes along the geodesic from ``x``."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the manifold to a point of the surrounding space."""

    def log_origin(self, x: Tensor) -> Tensor:
        """The velocity at ``x`` of the geodesic that reaches the origin after a unit of time: where decay leads."""
        raise UnsupportedError(f"{self!r} has no origin to decay to; leave weight_decay at 0 for its parameters")

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of a point, counted from the last."""
        return tuple(range(-self.point_dims, 0))
