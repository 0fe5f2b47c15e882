"""Landscape: what the loss looks like around the parameters, and along training."""

from covector.landscape.batch_spectrum import BatchSpectrum, batch_spectrum
from covector.landscape.generalization import GradientScatter, gradient_scatter, scatter_of_batches, sgd_advantage
from covector.landscape.gradient_flow import Flow, gfs_sharpness, gradient_flow
from covector.landscape.inspection import PARTS, Inspection, LayerTrace, inspect
from covector.landscape.line import barrier, line
from covector.landscape.monotone import Monotone, monotone
from covector.landscape.quadratic_regression import QuadraticRegression, Trajectory, taylor, two_parameter
from covector.landscape.random_matrix import effective_size, heavy_ball, lr_for_batch, marchenko_pastur_top, wigner_top
from covector.landscape.roughness import Roughness, roughness_index, total_variation
from covector.landscape.scalar_network import ScalarNetwork
from covector.landscape.sgd_stability import Stability, stability
from covector.landscape.sharpness import Sharpness
from covector.landscape.slices import filter_normalized, plane, principal_plane, random_directions, slices
from covector.landscape.spectrum import Outliers, near_zero, outliers, spectrum
from covector.landscape.subspace import DominantSubspace, Placement, fraction, overlap, project
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
    "QuadraticRegression",
    "Roughness",
    "ScalarNetwork",
    "Sharpness",
    "Stability",
    "Trajectory",
    "Watch",
    "barrier",
    "batch_spectrum",
    "effective_size",
    "filter_normalized",
    "fraction",
    "gfs_sharpness",
    "gradient_flow",
    "gradient_scatter",
    "heavy_ball",
    "inspect",
    "line",
    "lr_for_batch",
    "marchenko_pastur_top",
    "monotone",
    "near_zero",
    "outliers",
    "overlap",
    "plane",
    "principal_plane",
    "project",
    "random_directions",
    "roughness_index",
    "scatter_of_batches",
    "sgd_advantage",
    "slices",
    "spectrum",
    "stability",
    "taylor",
    "total_variation",
    "two_parameter",
    "wigner_top",
]
