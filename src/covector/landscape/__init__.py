"""What the loss surface looks like: spectrum, sharpness, stability, subspaces, roughness and slices."""

from covector.landscape.batch_spectrum import BatchSpectrum, batch_spectrum
from covector.landscape.generalization import GradientScatter, gradient_scatter, scatter_of_batches, sgd_advantage
from covector.landscape.inspection import PARTS, Inspection, LayerTrace, inspect
from covector.landscape.random_matrix import effective_size, heavy_ball, lr_for_batch, marchenko_pastur_top, wigner_top
from covector.landscape.watch import QUANTITIES, Watch

__all__ = [
    "PARTS",
    "QUANTITIES",
    "BatchSpectrum",
    "GradientScatter",
    "Inspection",
    "LayerTrace",
    "Watch",
    "batch_spectrum",
    "effective_size",
    "gradient_scatter",
    "heavy_ball",
    "inspect",
    "lr_for_batch",
    "marchenko_pastur_top",
    "scatter_of_batches",
    "sgd_advantage",
    "wigner_top",
]
