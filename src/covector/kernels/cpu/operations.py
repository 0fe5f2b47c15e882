"""The operations of the interface on CPU tensors: the arguments as numbers, and the split over threads."""

from __future__ import annotations

import torch
from numba import types
from torch import Tensor

from covector.kernels import reference
from covector.kernels.cpu.compile import kernel, supports
from covector.kernels.cpu.threads import split

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]

_LOW = 0xFFFFFFFF
# pieces of a range are whole tiles of the loops, give or take the start
_TILE = 2048
_NANOSECONDS = {"rademacher": 0.06, "binomial": 0.6, "normal": 1.2}


def _signed(seed: int) -> int:
    """The 64 bits of a seed as the int64 the kernels take."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed


def _whole(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    return numbers.to("cpu", dtype).contiguous()


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
    if not supports(out.dtype):
        reference.add_field_(out, seeds, scales, distribution, field, start, stream, step)
        return
    count, size, address = out.numel(), out.element_size(), out.data_ptr()
    counter = (field & _LOW, stream & _LOW, step & _LOW)
    work_dtype = reference.work_dtype(out.dtype)
    scales = _whole(scales, work_dtype)
    cost = count * (0.2 + _NANOSECONDS[distribution] * seeds.numel())
    if distribution == "rademacher" and seeds.numel() == 1:
        one = kernel("add_one_seed", out.dtype)
        seed, scale = int(seeds), float(scales)

        def add_one(begin: int, end: int) -> None:
            one(address + begin * size, start + begin, end - begin, seed, scale, *counter, 0)

        split(add_one, count, _TILE, cost)
        return
    seeds = _whole(seeds, torch.int64)
    total = types.float64 if work_dtype == torch.float64 else types.float32
    loop = kernel(f"sum_{distribution}", out.dtype, total)
    rows = (seeds.data_ptr(), scales.data_ptr(), seeds.numel())

    def add(begin: int, end: int) -> None:
        place = address + begin * size
        loop(place, place, start + begin, end - begin, *rows, *counter, 1.0, 0.0, 0)

    split(add, count, _TILE, cost)


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
    if not supports(out.dtype):
        reference.materialize_seeded_(out, base, seeds, units, distribution, exponent, field, start)
        return
    count, size, address, source = out.numel(), out.element_size(), out.data_ptr(), base.data_ptr()
    seeds, units = _whole(seeds, torch.int64), _whole(units, torch.int64)
    used = units.nonzero().flatten()
    seeds, units = seeds[used], units[used]
    largest = 1 if distribution == "rademacher" else 32
    narrow = float(units.to(torch.float64).abs().sum()) * largest < 2**31 - 2**20
    total, total_dtype = (types.int32, torch.int32) if narrow else (types.int64, torch.int64)
    initial = 0
    if distribution == "rademacher":
        # z = 1 - 2 bit: begin with the sum of all units and take 2 of a unit back where its bit is set
        initial, units = int(units.sum()), units * -2
    # wraps modulo 2**32, as the sums do, and the true sum fits
    coefficients = units.to(total_dtype)
    loop = kernel(f"sum_{distribution}", out.dtype, total)
    rows = (seeds.data_ptr(), coefficients.data_ptr(), seeds.numel())
    factor = 2.0**-exponent

    def materialize(begin: int, end: int) -> None:
        places = (address + begin * size, source + begin * size, start + begin, end - begin)
        loop(*places, *rows, field & _LOW, 0, 0, factor, initial, 0)

    split(materialize, count, _TILE, count * (0.4 + _NANOSECONDS[distribution] * seeds.numel()))


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
    if not supports(out.dtype):
        reference.materialize_sketch_(out, base, table, seed, field, shift, start, stream, step)
        return
    count, size, address, source = out.numel(), out.element_size(), out.data_ptr(), base.data_ptr()
    table = _whole(table, reference.work_dtype(out.dtype))
    if table.numel() < 1024:
        # the same function of the index, with runs long enough for whole groups
        table = table.repeat(1024 // table.numel() + 1)
    loop = kernel("materialize_sketch", out.dtype)
    place = (table.data_ptr(), table.numel(), shift % table.numel())
    counter = (_signed(seed), field & _LOW, stream & _LOW, step & _LOW)

    def materialize(begin: int, end: int) -> None:
        there = begin * size
        loop(address + there, source + there, *place, start + begin, end - begin, *counter, 0, 0)

    split(materialize, count, _TILE, count * 0.4)


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
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each bucket in the order of ``i``.

    Threads share out the buckets, not the elements, so no sum depends on how many there are.
    """
    if not supports(gradient.dtype):
        reference.project_sketch_(totals, gradient, seed, field, shift, start, stream, step)
        return
    loop = kernel("project_sketch", gradient.dtype)
    buckets, count = totals.numel(), gradient.numel()
    place = (gradient.data_ptr(), shift % buckets, start, count)
    counter = (_signed(seed), field & _LOW, stream & _LOW, step & _LOW)

    def project(begin: int, end: int) -> None:
        loop(totals.data_ptr(), buckets, begin, end, *place, *counter, 0)

    split(project, buckets, 1024, count * 0.3)
