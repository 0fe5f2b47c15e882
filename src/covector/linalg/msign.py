"""The matrix sign ``msign(M) = U V^T`` of ``M = U S V^T``: the direction of steepest ascent in the spectral norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.checks import check_choice, check_finite, check_matrix, check_steps, working_dtype
from covector.linalg.newton_schulz import iterate
from covector.linalg.schedules import Triple, polar_express, schedule
from covector.linalg.spectral import symmetric_eigh

__all__ = ["METHODS", "fast_dtype", "msign", "msign_with_dual", "nuclear_norm"]

METHODS = ("auto", "newton-schulz", "whitening", "polar-express", "eigh", "svd")
STEPS = {"newton-schulz": 5, "whitening": 5, "polar-express": 7}
HALF = (torch.bfloat16, torch.float16)
USUAL = (1e-6, 1e9)  # norms whose square, and the squares of whose smallest parts, float32 holds


def msign(
    matrix: Tensor,
    method: str = "auto",
    steps: int | None = None,
    dtype: torch.dtype | None = None,
    *,
    coefficients: Sequence[Triple] | None = None,
    check: bool = True,
) -> Tensor:
    """The polar factor ``U V^T``: the singular vectors of the matrix with all singular values replaced by 1.

    ================= ==================================================================================
    method            singular values of the result, for singular values s (relative to the largest)
    ================= ==================================================================================
    ``newton-schulz`` 0.68 to 1.20 for s above 0.01 of the Frobenius norm (Jordan's coefficients; Muon)
    ``whitening``     0.97 to 1.04 for the same, by five different triples
    ``polar-express`` 1 up to 1e-6 for s above 0.001 of the Frobenius norm
    ``eigh``          1 for s above 0.01 in float32; smaller ones are damped (eigenvectors of ``M M^T``)
    ``svd``           1 for every s, to rounding
    ``auto``          newton-schulz or, for large matrices on a CPU, what is faster there: eigh or bfloat16
    ================= ==================================================================================

    Directions with s = 0 stay zero, except with ``svd``, which completes them to an orthogonal factor.

    Args:
        matrix: ``[..., m, n]``; a batch is worked on at once, and m > n is transposed first.
        method: see the table; ``auto`` is for optimizers, which need speed more than exactness.
        steps: of the iterations (default 5; 7 for ``polar-express``).
        dtype: what iterations compute in. Default: float64 for float64, bfloat16 on GPUs that are fast with it,
            else float32. :func:`fast_dtype` names bfloat16 on CPUs that are fast with it, where ``auto`` uses it.
        coefficients: triples ``(a, b, c)`` for the iteration instead of a named method's.
        check: refuse NaN and infinities; on a GPU this waits for the device.

    Returns:
        ``[..., m, n]`` in the dtype of ``matrix``. A zero matrix stays zero, whatever the method.

    Raises:
        ArgumentError: not a matrix, an unknown method, ``steps`` below 1, or steps for a direct method.
        UnsupportedError: complex, sparse or integer elements.
        NonFiniteError: NaN or infinite elements.

    Source: K. Jordan, "Muon" (2024); Amsel et al., "The Polar Express" (2025).

    >>> msign(torch.diag(torch.tensor([5.0, -0.5])), method="svd")
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    return _solve(matrix, method, steps, dtype, coefficients, check)[0]


def msign_with_dual(
    matrix: Tensor,
    method: str = "auto",
    steps: int | None = None,
    dtype: torch.dtype | None = None,
    *,
    coefficients: Sequence[Triple] | None = None,
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """:func:`msign` together with the dual norm ``<M, msign(M)>``, the sum of the singular values, at no extra cost.

    Args:
        matrix: ``[..., m, n]``.
        method: as for :func:`msign`; exact with ``svd``, to about 15 % with ``newton-schulz``.
        steps: as for :func:`msign`.
        dtype: as for :func:`msign`.
        coefficients: as for :func:`msign`.
        check: as for :func:`msign`.

    Returns:
        The factor ``[..., m, n]`` and the nuclear norms ``[...]``, in the dtype of ``matrix``.

    >>> factor, dual = msign_with_dual(torch.diag(torch.tensor([5.0, -0.5])), method="svd")
    >>> dual.item()
    5.5
    """
    factor, dual = _solve(matrix, method, steps, dtype, coefficients, check)
    if dual is None:
        work = working_dtype(matrix)
        dual = (factor.to(work) * matrix.to(work)).sum(dim=(-2, -1)).to(matrix.dtype)
    return factor, dual


def nuclear_norm(matrix: Tensor, method: str = "svd") -> Tensor:
    """The sum of the singular values, the dual of the spectral norm.

    Args:
        matrix: ``[..., m, n]``.
        method: ``"svd"`` (exact) or any other of :func:`msign`, for an estimate ``<M, msign(M)>``.

    Returns:
        ``[...]``.

    >>> nuclear_norm(torch.diag(torch.tensor([3.0, -4.0]))).item()
    7.0
    """
    if method != "svd":
        return msign_with_dual(matrix, method)[1]
    check_matrix(matrix)
    check_finite(matrix)
    values: Tensor = torch.linalg.svdvals(matrix.to(working_dtype(matrix)))
    return values.sum(-1).to(matrix.dtype)


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Bfloat16 where the processor multiplies it faster than float32, else float32.

    Args:
        device: a CPU counts when it has AMX or AVX-512 BF16 instructions, a CUDA device from compute capability 8.0.

    >>> fast_dtype("cpu") in (torch.bfloat16, torch.float32)
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


def choose(x: Tensor) -> tuple[str, torch.dtype | None]:
    """The method and dtype that ``auto`` stands for; ``x`` ``[batch, m, n]`` with m <= n.

    Measured on one core with AVX-512 BF16, milliseconds for five steps in float32, in bfloat16, and for eigh:
    64 x 64: 0.15, 0.45, 0.23; 256 x 256: 5.7, 3.1, 5.6; 512 x 512: 46, 21, 30; 128 x 512: 1.4, 1.5, 1.2; 256 x 1024:
    10, 8.5, 7 to 10.
    """
    _, m, n = x.shape
    if x.device.type != "cpu" or m < 128 or (m < 192 and n < 4 * m):
        return "newton-schulz", None
    if n < 2 * m and x.dtype != torch.float64 and fast_dtype("cpu") == torch.bfloat16:
        return "newton-schulz", torch.bfloat16
    return "eigh", None


def _solve(
    matrix: Tensor,
    method: str,
    steps: int | None,
    dtype: torch.dtype | None,
    coefficients: Sequence[Triple] | None,
    check: bool,
) -> tuple[Tensor, Tensor | None]:
    """The factor, and the dual norm where the method has it at hand."""
    check_matrix(matrix)
    check_choice("method", method, METHODS)
    if dtype is not None and not dtype.is_floating_point:
        raise ArgumentError("dtype", dtype, "a real floating dtype")
    if matrix.numel() == 0:
        return matrix.clone(), None
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    tall = flat.shape[-2] > flat.shape[-1]
    x = (flat.mT if tall else flat).to(working_dtype(matrix))
    if method == "auto":
        free = steps is None and coefficients is None and dtype is None
        method, dtype = choose(x) if free else ("newton-schulz", dtype)
    x, length, scale = _in_range(x, check)
    dual: Tensor | None = None
    if method in STEPS:
        x = _iterative(x / length, method, steps, dtype, coefficients)
    elif steps is not None or coefficients is not None:
        raise ArgumentError("steps" if steps is not None else "coefficients", steps or coefficients, f"none: {method}")
    else:
        x, norms = _by_svd(x) if method == "svd" else _by_eigh(x)
        if scale is not None:
            x = torch.where(length > torch.finfo(x.dtype).tiny, x, 0.0)
            norms = norms * scale[:, 0, 0]
        dual = norms.reshape(matrix.shape[:-2]).to(matrix.dtype)
    return (x.mT if tall else x).to(matrix.dtype).reshape(matrix.shape), dual


def _in_range(x: Tensor, check: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The matrices, their Frobenius norms, and what they were divided by where squares would leave the range.

    The usual case reads the matrices once. The divisor is a power of two, so that dividing rounds nothing.
    """
    tiny = torch.finfo(x.dtype).tiny
    length = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    if check or x.device.type == "cpu":
        usual = (length > USUAL[0]) & (length < USUAL[1])  # False for NaN
        if bool(usual.all()):
            return x, length, None
    if check:
        check_finite(x)
    largest = torch.linalg.vector_norm(x, torch.inf, dim=(-2, -1), keepdim=True)
    scale = torch.exp2(torch.floor(torch.log2(largest.clamp_min(tiny))))
    x = x / scale
    return x, torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp_min(tiny), scale


def _iterative(
    x: Tensor, method: str, steps: int | None, dtype: torch.dtype | None, coefficients: Sequence[Triple] | None
) -> Tensor:
    work = dtype or _iteration_dtype(x)
    if coefficients is not None:
        if steps is not None and steps != len(coefficients):
            raise ArgumentError("steps", steps, f"{len(coefficients)}, the number of coefficients, or None")
        triples = tuple(coefficients)
    else:
        steps = STEPS[method] if steps is None else steps
        check_steps(steps)
        careful = method == "polar-express" and work in HALF
        triples = polar_express(steps, safety=1.01) if careful else schedule(method, steps)
    return iterate(x.to(work), triples)


def _iteration_dtype(x: Tensor) -> torch.dtype:
    if x.device.type == "cuda" and x.dtype != torch.float64:
        return fast_dtype(x.device)
    return x.dtype


def _by_svd(x: Tensor) -> tuple[Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh, s.sum(-1)


def _by_eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """``(M M^T)^(-1/2) M``; the floor under the eigenvalues is their rounding error, so that noise is not blown up."""
    values, vectors = symmetric_eigh(x @ x.mT)
    floor = values[:, -1:] * (x.shape[-2] * torch.finfo(x.dtype).eps)
    safe = (values.clamp_min(0.0) + floor).clamp_min(torch.finfo(x.dtype).tiny)
    factor = (vectors * safe.rsqrt().unsqueeze(-2)) @ (vectors.mT @ x)
    return factor, values.clamp_min(0.0).sqrt().sum(-1)
