"""What the loss surface looks like: spectrum, sharpness, stability, subspaces, roughness and slices."""

from covector.landscape.batch_spectrum import BatchSpectrum, batch_spectrum
from covector.landscape.generalization import GradientScatter, gradient_scatter, sgd_advantage
from covector.landscape.random_matrix import effective_size, heavy_ball, lr_for_batch, marchenko_pastur_top, wigner_top

__all__ = [
    "BatchSpectrum",
    "GradientScatter",
    "batch_spectrum",
    "effective_size",
    "gradient_scatter",
    "heavy_ball",
    "lr_for_batch",
    "marchenko_pastur_top",
    "sgd_advantage",
    "wigner_top",
]
