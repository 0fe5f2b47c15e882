"""Landscape: what the loss looks like around the parameters, and along training."""

from covector.landscape.gradient_flow import Flow, gfs_sharpness, gradient_flow
from covector.landscape.line import barrier, line
from covector.landscape.monotone import Monotone, monotone
from covector.landscape.quadratic_regression import QuadraticRegression, Trajectory, taylor, two_parameter
from covector.landscape.scalar_network import ScalarNetwork
from covector.landscape.sgd_stability import Stability, stability
from covector.landscape.sharpness import Sharpness
from covector.landscape.spectrum import Outliers, near_zero, outliers, spectrum
from covector.landscape.subspace import DominantSubspace, Placement, fraction, overlap, project

__all__ = [
    "DominantSubspace",
    "Flow",
    "Monotone",
    "Outliers",
    "Placement",
    "QuadraticRegression",
    "ScalarNetwork",
    "Sharpness",
    "Stability",
    "Trajectory",
    "barrier",
    "fraction",
    "gfs_sharpness",
    "gradient_flow",
    "line",
    "monotone",
    "near_zero",
    "outliers",
    "overlap",
    "project",
    "spectrum",
    "stability",
    "taylor",
    "two_parameter",
]
