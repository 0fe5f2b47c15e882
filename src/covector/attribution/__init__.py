"""Which parts of an input an output depends on: input derivatives, smoothed, integrated, or of higher order.

Every function takes a callable ``f`` (a module, or any function of a batch), inputs ``x [B, ...]`` and a choice of one
output an example, works on all examples and noisy copies at once in chunks of bounded size, and leaves the gradients of
parameters alone. Examples must not mix: a module with batch normalization belongs in eval mode.
"""

from covector.attribution.derivatives import directional_derivatives, hessian_vector, input_derivatives
from covector.attribution.display import heatmap
from covector.attribution.gradients import input_gradient
from covector.attribution.integrated import Integrated, integrated_gradients
from covector.attribution.selection import Target, select
from covector.attribution.smoothgrad import Smoothed, smooth, smoothgrad, smoothgrad_squared, vargrad

__all__ = [
    "Integrated",
    "Smoothed",
    "Target",
    "directional_derivatives",
    "heatmap",
    "hessian_vector",
    "input_derivatives",
    "input_gradient",
    "integrated_gradients",
    "select",
    "smooth",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
]
