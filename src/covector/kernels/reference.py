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
from covector.kernels.operands import Place, Terms

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
    "supports",
    "words",
    "work_dtype",
]

# elements handled at a time, so that temporaries stay in the processor's cache
_CHUNK = 1 << 16


def supports(_dtype: torch.dtype) -> bool:
    """The definition serves every storage."""
    return True


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype arithmetic happens in: float64 for float64, float32 for every narrower storage."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunks(count: int, place: Place) -> Iterator[tuple[slice, int, Place]]:
    """Pieces of a range of ``count`` elements: where they lie, how many, and the place of the first."""
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        yield slice(begin, begin + size), size, place.ahead(begin)


def add_field_(out: Tensor, terms: Terms, place: Place) -> None:
    """``out += terms``, summed in the order of the seeds, then added once."""
    dtype = work_dtype(out.dtype)
    pairs = list(zip(terms.seeds.tolist(), terms.coefficients.to(dtype).tolist(), strict=True))
    for part, size, here in _chunks(out.numel(), place):
        total = torch.zeros(size, dtype=dtype, device=out.device)
        for seed, scale in pairs:
            total += field_values(seed, terms.distribution, size, here, out.device).to(dtype) * scale
        out[part] = (out[part].to(dtype) + total).to(out.dtype)


def materialize_seeded_(out: Tensor, base: Tensor, terms: Terms, exponent: int, place: Place) -> None:
    """``out = base + 2**-exponent * terms``, the sum exact in integers."""
    dtype = work_dtype(out.dtype)
    pairs = list(zip(terms.seeds.tolist(), terms.coefficients.tolist(), strict=True))
    for part, size, here in _chunks(out.numel(), place):
        total = torch.zeros(size, dtype=torch.int64, device=out.device)
        for seed, unit in pairs:
            total += field_integers(seed, terms.distribution, size, here, out.device) * unit
        shift = total.to(dtype) * 2.0**-exponent
        out[part] = (base[part].to(dtype) + shift).to(out.dtype)


def _buckets(here: Place, size: int, shift: int, table: Tensor) -> Tensor:
    first = here.start + shift
    return torch.arange(first, first + size, device=table.device) % table.numel()


def materialize_sketch_(out: Tensor, base: Tensor, table: Tensor, seed: int, shift: int, place: Place) -> None:
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]`` with Rademacher signs ``D``."""
    dtype = work_dtype(out.dtype)
    for part, size, here in _chunks(out.numel(), place):
        signs = field_integers(seed, "rademacher", size, here, out.device).to(dtype)
        out[part] = (base[part].to(dtype) + signs * table[_buckets(here, size, shift, table)]).to(out.dtype)


def project_sketch_(totals: Tensor, gradient: Tensor, seed: int, shift: int, place: Place) -> None:
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``: transposed :func:`materialize_sketch_`."""
    for part, size, here in _chunks(gradient.numel(), place):
        signs = field_integers(seed, "rademacher", size, here, gradient.device)
        totals.index_add_(0, _buckets(here, size, shift, totals), signs * gradient[part].to(torch.float64))
