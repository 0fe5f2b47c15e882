"""Matrix functions, batched: polar factors, roots and their derivatives, bases and largest singular values.

One implementation of each, shared by optimizers (Muon, Shampoo, SOAP), layers (whitening) and diagnostics. Every
function takes ``[..., m, n]``, works on all matrices of a batch at once, and refuses what it cannot work on by a typed
error.
"""

from covector.linalg.inv_root import inv_root
from covector.linalg.lyapunov import lyapunov
from covector.linalg.msign import fast_dtype, msign, msign_with_dual, nuclear_norm
from covector.linalg.operator import DenseOperator, FunctionOperator, LinearOperator
from covector.linalg.orthonormalize import orthonormalize, reorthonormalize
from covector.linalg.schedules import polar_express
from covector.linalg.spectral import power_iteration, symmetric_eigh
from covector.linalg.sqrtm import inv_sqrtm, sqrtm, sqrtm_residual

__all__ = [
    "DenseOperator",
    "FunctionOperator",
    "LinearOperator",
    "fast_dtype",
    "inv_root",
    "inv_sqrtm",
    "lyapunov",
    "msign",
    "msign_with_dual",
    "nuclear_norm",
    "orthonormalize",
    "polar_express",
    "power_iteration",
    "reorthonormalize",
    "sqrtm",
    "sqrtm_residual",
    "symmetric_eigh",
]
