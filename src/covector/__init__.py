"""Covector: the gradient as a first-class value.

A gradient is obtained from an :class:`Objective` by an estimator, carried in some representation (perhaps over
a wire), and turned into a step. Each of these stations is small and swappable::

    estimate = ZerothOrder(directions=SketchPool(key=1))(objective, batch)
    wire = estimate.gradient.to_bytes("byte")
    Gradient.from_bytes(wire).add_to_(objective.params, scale=-lr)
"""

from covector.estimators import Backprop, Estimate, Estimator, LowRankDirections, ZerothOrder
from covector.gradients import (
    Dense,
    Gradient,
    Ledger,
    LowRank,
    Perturbed,
    Seeded,
    SeedPool,
    Sketch,
    SketchPool,
    Subspace,
)
from covector.objective import Objective
from covector.training import train

__version__ = "0.1.0"

__all__ = [
    "Backprop",
    "Dense",
    "Estimate",
    "Estimator",
    "Gradient",
    "Ledger",
    "LowRank",
    "LowRankDirections",
    "Objective",
    "Perturbed",
    "SeedPool",
    "Seeded",
    "Sketch",
    "SketchPool",
    "Subspace",
    "ZerothOrder",
    "train",
]
