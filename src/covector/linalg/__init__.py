"""Linear algebra: functions of matrices in batches, and of operators that are known by their products.

One implementation of each, shared by optimizers (Muon, Shampoo, SOAP), layers (whitening) and diagnostics. Functions of
matrices take ``[..., m, n]`` and work on all matrices of a batch at once; functions of a :class:`LinearOperator`
(Lanczos, eigenvalues, spectra, traces, systems) count its products. All refuse what they cannot work on by a typed
error.
"""

from covector.linalg.eigsh import Eigen, eigsh
from covector.linalg.functions import Shifted, apply_function, shifted_solves
from covector.linalg.inv_root import inv_root
from covector.linalg.lanczos import Lanczos, lanczos
from covector.linalg.lyapunov import lyapunov
from covector.linalg.msign import fast_dtype, msign, msign_with_dual, nuclear_norm
from covector.linalg.nystrom import Nystrom, nystrom
from covector.linalg.operator import DenseOperator, FunctionOperator, LinearOperator
from covector.linalg.orthonormalize import orthonormalize
from covector.linalg.schedules import polar_express
from covector.linalg.slq import Spectrum, slq
from covector.linalg.solve import Solution, cg, minres
from covector.linalg.spectral import power_iteration, symmetric_eigh
from covector.linalg.sqrtm import inv_sqrtm, sqrtm, sqrtm_residual
from covector.linalg.trace import Estimated, diagonal, frobenius2, trace

__all__ = [
    "DenseOperator",
    "Eigen",
    "Estimated",
    "FunctionOperator",
    "Lanczos",
    "LinearOperator",
    "Nystrom",
    "Shifted",
    "Solution",
    "Spectrum",
    "apply_function",
    "cg",
    "diagonal",
    "eigsh",
    "fast_dtype",
    "frobenius2",
    "inv_root",
    "inv_sqrtm",
    "lanczos",
    "lyapunov",
    "minres",
    "msign",
    "msign_with_dual",
    "nuclear_norm",
    "nystrom",
    "orthonormalize",
    "polar_express",
    "power_iteration",
    "shifted_solves",
    "slq",
    "sqrtm",
    "sqrtm_residual",
    "symmetric_eigh",
    "trace",
]
