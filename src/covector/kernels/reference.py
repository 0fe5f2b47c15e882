"""The kernels in plain torch, on any device: what the fast ones must give, bit for bit.

The numbers come from :mod:`covector.kernels.fields`, which this module hands on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from covector.kernels.fields import (
    ELEMENTS_PER_BLOCK,
    UNIT_EXPONENT,
    field_integers,
    field_values,
    philox,
    words,
)

__all__ = [
    "ELEMENTS_PER_BLOCK",
    "UNIT_EXPONENT",
    "add_field_",
    "field_integers",
    "field_values",
    "materialize_seeded_",
    "materialize_sketch_",
    "philox",
    "project_sketch_",
    "words",
    "work_dtype",
]

# elements handled at a time, so that temporaries stay in the processor's cache
_CHUNK = 1 << 16


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype arithmetic happens in: float64 for float64, float32 for every narrower storage."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunks(count: int) -> Iterator[slice]:
    for begin in range(0, count, _CHUNK):
        yield slice(begin, min(begin + _CHUNK, count))


def add_field_(
    out: Tensor,
    seeds: Tensor,
    scales: Tensor,
    distribution: str,
    field: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``out += sum_k scales[k] * z(seeds[k])``, summed over k in order, then added once.

    Args:
        out: flat contiguous floating tensor ``[n]``: elements ``start .. start + n - 1`` of the named tensor.
        seeds: int64 ``[K]``.
        scales: float64 ``[K]``, rounded to the working dtype first.
    """
    dtype = work_dtype(out.dtype)
    rounded = scales.to(dtype).tolist()
    for part in _chunks(out.numel()):
        size = part.stop - part.start
        total = torch.zeros(size, dtype=dtype, device=out.device)
        for seed, scale in zip(seeds.tolist(), rounded, strict=True):
            z = field_values(seed, distribution, start + part.start, size, field, stream, step, out.device)
            total += z.to(dtype) * scale
        out[part] = (out[part].to(dtype) + total).to(out.dtype)


def materialize_seeded_(
    out: Tensor,
    base: Tensor,
    seeds: Tensor,
    units: Tensor,
    distribution: str,
    exponent: int,
    field: int,
    start: int = 0,
) -> None:
    """``out = base + 2**-exponent * sum_k units[k] * z(seeds[k])``, the sum exact in integers.

    Args:
        out: flat contiguous ``[n]``; may be ``base`` itself.
        base: flat contiguous ``[n]``, same dtype.
        seeds: int64 ``[K]``.
        units: int64 ``[K]``; ``z`` counts in the units of its law (:data:`UNIT_EXPONENT`), which the caller
            includes in ``exponent``.
    """
    dtype = work_dtype(out.dtype)
    pairs = list(zip(seeds.tolist(), units.tolist(), strict=True))
    for part in _chunks(out.numel()):
        size = part.stop - part.start
        total = torch.zeros(size, dtype=torch.int64, device=out.device)
        for seed, unit in pairs:
            z = field_integers(seed, distribution, start + part.start, size, field, device=out.device)
            total += z * unit
        shift = total.to(dtype) * 2.0**-exponent
        out[part] = (base[part].to(dtype) + shift).to(out.dtype)


def materialize_sketch_(
    out: Tensor,
    base: Tensor,
    table: Tensor,
    seed: int,
    field: int,
    shift: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]`` with Rademacher signs ``D``.

    Args:
        out: flat contiguous ``[n]``; may be ``base`` itself.
        base: flat contiguous ``[n]``, same dtype.
        table: ``[N]`` in the working dtype (float32, or float64 for float64 parameters).
    """
    dtype = work_dtype(out.dtype)
    size_of_table = table.numel()
    for part in _chunks(out.numel()):
        size = part.stop - part.start
        first = start + part.start
        signs = field_integers(seed, "rademacher", first, size, field, stream, step, out.device).to(dtype)
        index = torch.arange(first + shift, first + shift + size, device=out.device) % size_of_table
        out[part] = (base[part].to(dtype) + signs * table[index]).to(out.dtype)


def project_sketch_(
    totals: Tensor,
    gradient: Tensor,
    seed: int,
    field: int,
    shift: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``: transposed :func:`materialize_sketch_`.

    Args:
        totals: float64 ``[N]``, added to.
        gradient: flat contiguous ``[n]``.
    """
    for part in _chunks(gradient.numel()):
        size = part.stop - part.start
        first = start + part.start
        signs = field_integers(seed, "rademacher", first, size, field, stream, step, gradient.device)
        index = torch.arange(first + shift, first + shift + size, device=gradient.device) % totals.numel()
        totals.index_add_(0, index, signs * gradient[part].to(torch.float64))
