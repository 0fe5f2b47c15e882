"""The operations of the interface on CUDA tensors: how many programs, with what arguments."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.graph import increment_version

from covector.kernels import reference
from covector.kernels.cuda import programs

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]

_LOW = 0xFFFFFFFF
_STORAGE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# elements a program owns, by law
_TILE = {"rademacher": 2048, "binomial": 256, "normal": 512}


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


def _signed(seed: int) -> int:
    """The 64 bits of a seed as an int64."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed


def _sum(
    out: Tensor,
    base: Tensor,
    seeds: Tensor,
    coefficients: Tensor,
    factor: float,
    distribution: str,
    start: int,
    counter: tuple[int, int, int],
) -> None:
    seeds = seeds.to(out.device, torch.int64).contiguous()
    coefficients = coefficients.to(out.device).contiguous()
    # a tensor, because a plain number would reach the program as float32
    scale = torch.full((1,), factor, dtype=torch.float64, device=out.device)
    arguments = (out, base, start, out.numel(), seeds, coefficients, seeds.numel(), *counter, scale)
    tiles = _tiles(start, out.numel(), _TILE[distribution])
    if distribution == "rademacher":
        _launch(programs.sum_rademacher, tiles, out, *arguments, WORK=_work(out.dtype))
        return
    laws = {"NORMAL": distribution == "normal", "EXACT": not coefficients.is_floating_point()}
    _launch(programs.sum_values, tiles, out, *arguments, WORK=_work(out.dtype), **laws)


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
    """``out += sum_k scales[k] * z(seeds[k])``; see :func:`covector.kernels.reference.add_field_`."""
    if out.dtype not in _STORAGE:
        reference.add_field_(out, seeds, scales, distribution, field, start, stream, step)
        return
    increment_version(out)
    scales = scales.to(reference.work_dtype(out.dtype))
    _sum(out, out, seeds, scales, 1.0, distribution, start, (field & _LOW, stream & _LOW, step & _LOW))


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
    """``out = base + 2**-exponent * sum_k units[k] * z(seeds[k])``, the sum exact in integers."""
    if out.dtype not in _STORAGE:
        reference.materialize_seeded_(out, base, seeds, units, distribution, exponent, field, start)
        return
    increment_version(out)
    largest = 1 if distribution == "rademacher" else 32
    # a sum of magnitudes, rounded in float64, so well below 2**31
    narrow = float(units.to(torch.float64).abs().sum()) * largest < 2**31 - 2**20
    units = units.to(torch.int32 if narrow else torch.int64)
    _sum(out, base, seeds, units, 2.0**-exponent, distribution, start, (field & _LOW, 0, 0))


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
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]``."""
    if out.dtype not in _STORAGE:
        reference.materialize_sketch_(out, base, table, seed, field, shift, start, stream, step)
        return
    increment_version(out)
    size = table.numel()
    counter = (_signed(seed), field & _LOW, stream & _LOW, step & _LOW)
    arguments = (out, base, table, size, shift % size, start, out.numel(), *counter)
    tiles = _tiles(start, out.numel(), _TILE["rademacher"])
    _launch(programs.materialize_sketch, tiles, out, *arguments, WORK=_work(out.dtype))


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
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each total in the order of ``i``."""
    if gradient.dtype not in _STORAGE:
        reference.project_sketch_(totals, gradient, seed, field, shift, start, stream, step)
        return
    increment_version(totals)
    size, count = totals.numel(), gradient.numel()
    counter = (_signed(seed), field & _LOW, stream & _LOW, step & _LOW)
    arguments = (totals, size, gradient, shift % size, start, count, *counter)
    owners = triton.cdiv(size, 32) if count else 0
    _launch(programs.project_sketch, owners, totals, *arguments, BUCKETS=32, UNROLL=8, num_warps=1)
