"""The operations of the interface on CPU tensors: the arguments as numbers, and the split over threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from covector.kernels import reference
from covector.kernels.cpu.compile import kernel, supports
from covector.kernels.cpu.threads import split

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]

_LOW = 0xFFFFFFFF
# pieces of a range are whole tiles of the loops, give or take the start
_TILE = 2048
# rough cost of an element and seed, to tell what is worth a thread
_NANOSECONDS = {"rademacher": 0.05, "binomial": 0.8, "normal": 1.2}


def _signed(seed: int) -> int:
    """The 64 bits of a seed as the int64 the kernels take."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed


def _plain(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    if numbers.dtype != dtype or numbers.device.type != "cpu":
        numbers = numbers.to("cpu", dtype)
    return numbers.contiguous()


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
    increment_version(out)
    count, size, address = out.numel(), out.element_size(), out.data_ptr()
    counter = (field & _LOW, stream & _LOW, step & _LOW)
    seed_count = seeds.numel()
    cost = count * (0.2 + _NANOSECONDS[distribution] * seed_count)
    if distribution == "rademacher" and seed_count == 1:
        one = kernel("add_one_seed", out.dtype)
        seed, scale = int(seeds), float(scales)

        def add_one(begin: int, end: int) -> None:
            one(address + begin * size, start + begin, end - begin, seed, scale, *counter, 0)

        split(add_one, count, _TILE, cost)
        return
    work = reference.work_dtype(out.dtype)
    seeds, scales = _plain(seeds, torch.int64), _plain(scales, work)
    loop, law = _sum_loop(distribution, work, out.dtype)
    rows = (seeds.data_ptr(), scales.data_ptr(), seed_count)

    def add(begin: int, end: int) -> None:
        place = address + begin * size
        loop(place, place, start + begin, end - begin, *rows, *counter, 1.0, 0.0, *law, 0)

    split(add, count, _TILE, cost)


def _sum_loop(distribution: str, total: torch.dtype, storage: torch.dtype) -> tuple[Callable[..., None], list[int]]:
    """The loop that sums seeds of a law, and what it wants as its ``law`` argument, if any."""
    if distribution == "rademacher":
        return kernel("sum_rademacher", total, storage), []
    law = torch.int32 if distribution == "binomial" else torch.float32
    return kernel("sum_values", total, law, storage), [0]


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
    increment_version(out)
    count, size, address, source = out.numel(), out.element_size(), out.data_ptr(), base.data_ptr()
    seeds, units = _plain(seeds, torch.int64), _plain(units, torch.int64)
    largest = 1 if distribution == "rademacher" else 32
    # a sum of magnitudes, rounded in float64, so well below 2**31
    narrow = float(units.to(torch.float64).abs().sum()) * largest < 2**31 - 2**20
    total = torch.int32 if narrow else torch.int64
    initial = 0
    if distribution == "rademacher":
        # z = 1 - 2 bit: begin with the sum of all units and take 2 of a unit back where its bit is set
        initial, units = int(units.sum()), units * -2
    # wraps modulo 2**32, as the sums do; the true sum fits
    units = units.to(total)
    loop, law = _sum_loop(distribution, total, out.dtype)
    rows = (seeds.data_ptr(), units.data_ptr(), seeds.numel())
    factor, word = 2.0**-exponent, field & _LOW

    def materialize(begin: int, end: int) -> None:
        places = (address + begin * size, source + begin * size, start + begin, end - begin)
        loop(*places, *rows, word, 0, 0, factor, initial, *law, 0)

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
    increment_version(out)
    count, size, address, source = out.numel(), out.element_size(), out.data_ptr(), base.data_ptr()
    if table.numel() < 1024:
        # the same function of the index, with runs long enough for whole groups
        table = table.repeat(1024 // table.numel() + 1)
    loop = kernel("materialize_sketch", table.dtype, out.dtype)
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
    increment_version(totals)
    loop = kernel("project_sketch", gradient.dtype)
    buckets, count = totals.numel(), gradient.numel()
    address, place = totals.data_ptr(), (gradient.data_ptr(), shift % buckets, start, count)
    counter = (_signed(seed), field & _LOW, stream & _LOW, step & _LOW)

    def project(begin: int, end: int) -> None:
        loop(address, buckets, begin, end, *place, *counter, 0)

    split(project, buckets, 1024, count * 0.3)
