"""Landscape: what the loss looks like around the parameters, and along training."""

from covector.landscape.batch_spectrum import BatchSpectrum, batch_spectrum
from covector.landscape.directions import filter_normalized, random_directions
from covector.landscape.generalization import GradientScatter, gradient_scatter, scatter_of_batches, sgd_advantage
from covector.landscape.gradient_flow import Flow, gfs_sharpness, gradient_flow
from covector.landscape.inspection import PARTS, Inspection, LayerTrace, inspect
from covector.landscape.line import barrier, line
from covector.landscape.monotone import Monotone, monotone
from covector.landscape.planes import Plane, contours, plane, plane_through
from covector.landscape.quadratic_regression import QuadraticRegression, Trajectory, taylor, two_parameter
from covector.landscape.random_matrix import effective_size, heavy_ball, lr_for_batch, marchenko_pastur_top, wigner_top
from covector.landscape.roughness import Roughness, roughness, roughness_index, total_variation
from covector.landscape.scalar_network import ScalarNetwork
from covector.landscape.sgd_stability import Stability, stability
from covector.landscape.sharpness import Sharpness
from covector.landscape.slices import losses_at, slices, symmetric_grid
from covector.landscape.spectrum import Outliers, near_zero, outliers, spectrum
from covector.landscape.subspace import DominantSubspace, Placement, fraction, overlap, project
from covector.landscape.trajectory import Projection, project_trajectory
from covector.landscape.watch import QUANTITIES, Watch

__all__ = [
    "PARTS",
    "QUANTITIES",
    "BatchSpectrum",
    "DominantSubspace",
    "Flow",
    "GradientScatter",
    "Inspection",
    "LayerTrace",
    "Monotone",
    "Outliers",
    "Placement",
    "Plane",
    "Projection",
    "QuadraticRegression",
    "Roughness",
    "ScalarNetwork",
    "Sharpness",
    "Stability",
    "Trajectory",
    "Watch",
    "barrier",
    "batch_spectrum",
    "contours",
    "effective_size",
    "filter_normalized",
    "fraction",
    "gfs_sharpness",
    "gradient_flow",
    "gradient_scatter",
    "heavy_ball",
    "inspect",
    "line",
    "losses_at",
    "lr_for_batch",
    "marchenko_pastur_top",
    "monotone",
    "near_zero",
    "outliers",
    "overlap",
    "plane",
    "plane_through",
    "project",
    "project_trajectory",
    "random_directions",
    "roughness",
    "roughness_index",
    "scatter_of_batches",
    "sgd_advantage",
    "slices",
    "spectrum",
    "stability",
    "symmetric_grid",
    "taylor",
    "total_variation",
    "two_parameter",
    "wigner_top",
]
