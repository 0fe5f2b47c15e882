"""The operations on CUDA tensors: how many programs, with what arguments."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from covector.kernels.cuda import programs
from covector.kernels.operands import Place, Terms
from covector.kernels.reference import work_dtype

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_", "supports"]

_STORAGE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# elements a program owns, by law
_TILE = {"rademacher": 2048, "binomial": 256, "normal": 512}


def supports(dtype: torch.dtype) -> bool:
    """Whether the programs handle this storage."""
    return dtype in _STORAGE


def _work(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _launch(program: Any, programs_: int, tensor: Tensor, *arguments: Any, **constants: Any) -> None:
    if programs_ == 0:
        return
    # Triton launches on the current device, which need not be the tensor's
    on_device = torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
    with on_device:
        program[(programs_,)](*arguments, **constants, enable_fp_fusion=False)


def _tiles(start: int, count: int, tile: int) -> int:
    return -(-(start + count) // tile) - start // tile if count else 0


def _sum_(out: Tensor, base: Tensor, terms: Terms, place: Place, factor: float) -> None:
    """``out = base + factor * terms``, summed in the dtype of the coefficients."""
    seeds = terms.seeds.to(out.device, torch.int64).contiguous()
    coefficients = terms.coefficients.to(out.device).contiguous()
    # a tensor, because a plain number would reach the program as float32
    scale = torch.full((1,), factor, dtype=torch.float64, device=out.device)
    arguments = (out, base, place.start, out.numel(), seeds, coefficients, seeds.numel(), *place.counter, scale)
    tiles = _tiles(place.start, out.numel(), _TILE[terms.distribution])
    if terms.distribution == "rademacher":
        _launch(programs.sum_rademacher, tiles, out, *arguments, WORK=_work(out.dtype))
        return
    laws = {"NORMAL": terms.distribution == "normal", "EXACT": not coefficients.is_floating_point()}
    _launch(programs.sum_values, tiles, out, *arguments, WORK=_work(out.dtype), **laws)


def add_field_(out: Tensor, terms: Terms, place: Place) -> None:
    """``out += terms``, summed in the order of the seeds, then added once."""
    scales = terms.coefficients.to(work_dtype(out.dtype))
    _sum_(out, out, terms._replace(coefficients=scales), place, 1.0)


def materialize_seeded_(out: Tensor, base: Tensor, terms: Terms, exponent: int, place: Place) -> None:
    """``out = base + 2**-exponent * terms``, the sum exact in integers."""
    units = terms.coefficients.to(torch.int32 if terms.fit_int32() else torch.int64)
    _sum_(out, base, terms._replace(coefficients=units), place, 2.0**-exponent)


def materialize_sketch_(out: Tensor, base: Tensor, table: Tensor, seed: int, shift: int, place: Place) -> None:
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]``."""
    arguments = (out, base, table, table.numel(), shift, place.start, out.numel(), seed, *place.counter)
    tiles = _tiles(place.start, out.numel(), _TILE["rademacher"])
    _launch(programs.materialize_sketch, tiles, out, *arguments, WORK=_work(out.dtype))


def project_sketch_(totals: Tensor, gradient: Tensor, seed: int, shift: int, place: Place) -> None:
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each total in the order of ``i``."""
    size, count = totals.numel(), gradient.numel()
    arguments = (totals, size, gradient, shift, place.start, count, seed, *place.counter)
    owners = triton.cdiv(size, 32) if count else 0
    _launch(programs.project_sketch, owners, totals, *arguments, BUCKETS=32, UNROLL=8, num_warps=1)
