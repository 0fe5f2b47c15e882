"""The operations on CPU tensors: addresses and numbers for the loops, and the split over threads."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.kernels.cpu.native import Loop, kernel
from covector.kernels.cpu.threads import split
from covector.kernels.operands import Place, Terms
from covector.kernels.reference import work_dtype

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]

# pieces of a range are whole tiles of the loops, give or take the start
_TILE = 2048
# rough cost of an element and seed, to tell what is worth a thread
_NANOSECONDS = {"rademacher": 0.05, "binomial": 0.8, "normal": 1.2}


def _plain(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    if numbers.dtype != dtype or numbers.device.type != "cpu":
        numbers = numbers.to("cpu", dtype)
    return numbers.contiguous()


def _sum_loop(distribution: str, total: torch.dtype, storage: torch.dtype) -> Loop:
    if distribution == "rademacher":
        return kernel("sum_rademacher", total, storage)
    return kernel("sum_values", total, torch.int32 if distribution == "binomial" else torch.float32, storage)


def _add_one_seed_(out: Tensor, terms: Terms, place: Place) -> None:
    loop = kernel("add_one_seed", out.dtype)
    address, size, start = out.data_ptr(), out.element_size(), place.start
    rest = (int(terms.seeds), *place.counter, float(terms.coefficients))

    def add(begin: int, end: int) -> None:
        loop(address + begin * size, start + begin, end - begin, *rest)

    split(add, out.numel(), _TILE, out.numel() * 0.3)


def _sum_(out: Tensor, base: Tensor, terms: Terms, place: Place, factor: float, initial: int) -> None:
    """``out = base + factor * (initial + terms)``, summed in the dtype of the coefficients."""
    seeds, coefficients = _plain(terms.seeds, torch.int64), terms.coefficients
    loop = _sum_loop(terms.distribution, coefficients.dtype, out.dtype)
    address, source, size, start = out.data_ptr(), base.data_ptr(), out.element_size(), place.start
    rest = (seeds.data_ptr(), coefficients.data_ptr(), seeds.numel(), *place.counter, factor, initial)

    def add(begin: int, end: int) -> None:
        there = begin * size
        loop(address + there, source + there, start + begin, end - begin, *rest)

    split(add, out.numel(), _TILE, out.numel() * (0.3 + _NANOSECONDS[terms.distribution] * seeds.numel()))


def add_field_(out: Tensor, terms: Terms, place: Place) -> None:
    """``out += terms``, summed in the order of the seeds, then added once."""
    if terms.distribution == "rademacher" and terms.seeds.numel() == 1:
        _add_one_seed_(out, terms, place)
        return
    scales = _plain(terms.coefficients, work_dtype(out.dtype))
    _sum_(out, out, terms._replace(coefficients=scales), place, 1.0, 0)


def materialize_seeded_(out: Tensor, base: Tensor, terms: Terms, exponent: int, place: Place) -> None:
    """``out = base + 2**-exponent * terms``, the sum exact in integers."""
    units = _plain(terms.coefficients, torch.int64)
    initial = 0
    if terms.distribution == "rademacher":
        # z = 1 - 2 bit: begin with the sum of all units and take 2 of a unit back where its bit is set
        initial, units = int(units.sum()), units * -2
    # wraps modulo 2**32, as the sums do; the true sum fits
    units = units.to(torch.int32 if terms.fit_int32() else torch.int64)
    _sum_(out, base, terms._replace(coefficients=units), place, 2.0**-exponent, initial)


def materialize_sketch_(out: Tensor, base: Tensor, table: Tensor, seed: int, shift: int, place: Place) -> None:
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]``."""
    if table.numel() < 1024:
        # the same function of the index, with runs long enough for whole groups
        table = table.repeat(1024 // table.numel() + 1)
    loop = kernel("materialize_sketch", table.dtype, out.dtype)
    address, source, size, start = out.data_ptr(), base.data_ptr(), out.element_size(), place.start
    entries, rest = (table.data_ptr(), table.numel(), shift), (seed, *place.counter)

    def materialize(begin: int, end: int) -> None:
        there = begin * size
        loop(address + there, source + there, *entries, start + begin, end - begin, *rest)

    split(materialize, out.numel(), _TILE, out.numel() * 0.4)


def project_sketch_(totals: Tensor, gradient: Tensor, seed: int, shift: int, place: Place) -> None:
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each total in the order of ``i``.

    Threads share out the totals, not the elements, so no sum depends on how many there are.
    """
    loop = kernel("project_sketch", gradient.dtype)
    address, buckets, count = totals.data_ptr(), totals.numel(), gradient.numel()
    rest = (gradient.data_ptr(), shift, place.start, count, seed, *place.counter)

    def project(begin: int, end: int) -> None:
        loop(address, buckets, begin, end, *rest)

    split(project, buckets, 1024, count * 0.3)
