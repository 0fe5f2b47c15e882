"""Riemannian manifolds, batched over points, and parameters that live on them."""

from covector.optim.manifolds.base import Manifold
from covector.optim.manifolds.euclidean import Euclidean
from covector.optim.manifolds.parameter import ManifoldParameter
from covector.optim.manifolds.poincare import PoincareBall
from covector.optim.manifolds.sphere import Sphere
from covector.optim.manifolds.stiefel import Stiefel

__all__ = ["Euclidean", "Manifold", "ManifoldParameter", "PoincareBall", "Sphere", "Stiefel"]
