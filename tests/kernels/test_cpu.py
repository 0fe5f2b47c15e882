"""The compiled kernels give the bits of the definition: every operation, storage, law and alignment."""

import pytest
import torch

from covector import kernels
from covector.kernels import cpu, reference
from covector.kernels.operands import Place, Terms

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16, torch.float16: torch.int16}
# lengths around groups of 32, blocks of 128, tiles of 2048; starts on and off all of them, and beyond 2**33
RANGES = [(0, 0), (1, 31), (33, 5), (128, 64), (2049, 2047), (5000, 2**33 + 13)]


def same(a, b):
    return a.dtype == b.dtype and torch.equal(a.view(BITS[a.dtype]), b.view(BITS[b.dtype]))


def base_of(count, dtype):
    return torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)


def seeds_of(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("distribution", ["rademacher", "binomial", "normal"])
@pytest.mark.parametrize("terms", [0, 1, 3, 67])
def test_add_field(dtype, distribution, terms):
    scales = torch.randn(terms, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for count, start in RANGES:
        expected, found = base_of(count, dtype), base_of(count, dtype)
        for kernel, out in ((reference, expected), (cpu, found)):
            kernel.add_field_(
                out, Terms(seeds_of(terms), scales, distribution), Place(0xFFFFFFFF, start, 3, 0xFFFFFFFE)
            )
        assert same(expected, found), (count, start)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("distribution", ["rademacher", "binomial"])
@pytest.mark.parametrize("terms", [0, 1, 67])
@pytest.mark.parametrize("largest", [2**10, 2**30, 2**52], ids=lambda x: f"units<{x}")
def test_materialize_seeded(dtype, distribution, terms, largest):
    units = torch.randint(-largest, largest, (terms,), generator=torch.Generator().manual_seed(2))
    for count, start in RANGES:
        base = base_of(count, dtype)
        expected, found = torch.empty_like(base), torch.empty_like(base)
        for kernel, out in ((reference, expected), (cpu, found)):
            kernel.materialize_seeded_(out, base, Terms(seeds_of(terms), units, distribution), 24, Place(7, start))
        assert same(expected, found), (count, start)


@pytest.mark.parametrize(
    "units", [[2**30, 2**30 - 2**21], [2**31 - 1, 1], [2**31, 5], [-(2**31), -7], [2**62, -(2**61)]]
)
@pytest.mark.parametrize("distribution", ["rademacher", "binomial"])
def test_sums_at_the_edges_of_32_and_64_bits(units, distribution):
    base = torch.zeros(777, dtype=torch.float64)
    expected, found = base.clone(), base.clone()
    for kernel, out in ((reference, expected), (cpu, found)):
        kernel.materialize_seeded_(out, base, Terms(seeds_of(2), torch.tensor(units), distribution), 0, Place(7))
    assert same(expected, found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 31, 64, 100, 1024, 4096, 5001])
@pytest.mark.parametrize("shift", [0, 5, 3 * 4096 + 32, -9])
def test_sketch_both_ways(dtype, size, shift):
    generator = torch.Generator().manual_seed(size)
    table = torch.randn(size, dtype=reference.work_dtype(dtype), generator=generator)
    totals = torch.randn(size, dtype=torch.float64, generator=generator)
    for count, start in RANGES:
        base = base_of(count, dtype)
        expected, found = torch.empty_like(base), torch.empty_like(base)
        projected, projected_too = totals.clone(), totals.clone()
        for kernel, out, into in ((reference, expected, projected), (cpu, found, projected_too)):
            kernel.materialize_sketch_(out, base, table, -5, shift % size, Place(9, start, 1, 2))
            kernel.project_sketch_(into, base, -5, shift % size, Place(9, start, 1, 2))
        assert same(expected, found), (count, start)
        assert same(projected, projected_too), (count, start)


def test_a_sketch_at_a_huge_start():
    base, table = base_of(3000, torch.float32), base_of(4097, torch.float32)
    expected, found = base.clone(), base.clone()
    for kernel, out in ((reference, expected), (cpu, found)):
        kernel.materialize_sketch_(out, base, table, 5, (2**33 + 1) % 4097, Place(1, 2**37 + 3))
    assert same(expected, found)


@pytest.mark.parametrize("distribution", ["rademacher", "binomial", "normal"])
def test_millions_of_elements(distribution):
    """A contracted multiply and add would show in one element of a few."""
    scale = torch.tensor([0.1, 1 / 3], dtype=torch.float64)
    expected, found = base_of(1 << 21, torch.float32), base_of(1 << 21, torch.float32)
    for kernel, out in ((reference, expected), (cpu, found)):
        kernel.add_field_(out, Terms(seeds_of(2), scale, distribution), Place(3))
    assert same(expected, found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out_may_be_base(dtype):
    base, table = base_of(5000, dtype), torch.randn(100, dtype=reference.work_dtype(dtype))
    for operation, arguments in (
        (cpu.materialize_sketch_, (table, 5, 0, Place(1, 3))),
        (cpu.materialize_seeded_, (Terms(seeds_of(5), torch.arange(5), "rademacher"), 3, Place(1, 7))),
    ):
        apart, within = torch.empty_like(base), base.clone()
        operation(apart, base, *arguments)
        operation(within, within, *arguments)
        assert same(apart, within)
        assert same(base, base_of(5000, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_stays_so(dtype):
    special = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).tiny]
    base = torch.tensor(special * 20, dtype=dtype)
    table = torch.full((64,), 1e-3, dtype=reference.work_dtype(dtype))
    results = []
    for kernel in (reference, cpu):
        added, sketched, exact = base.clone(), base.clone(), base.clone()
        scale = torch.tensor([1e-3], dtype=torch.float64)
        kernel.add_field_(added, Terms(seeds_of(1), scale, "rademacher"), Place(1))
        kernel.materialize_sketch_(sketched, sketched, table, 1, 0, Place(1))
        kernel.materialize_seeded_(exact, exact, Terms(seeds_of(1), torch.tensor([3]), "binomial"), 10, Place(1))
        results.append((added, sketched, exact))
    for expected, found in zip(*results, strict=True):
        assert torch.equal(expected.isnan(), found.isnan())
        assert same(expected.nan_to_num(7.0, 8.0, -8.0), found.nan_to_num(7.0, 8.0, -8.0))
        assert torch.equal(expected.isinf(), found.isinf())


@pytest.mark.parametrize("scale", [0.0, -0.0, float("inf"), 1e-45, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scales_at_the_edges(scale, dtype):
    base = torch.tensor([0.0, -0.0, 1.0, -1.0] * 40, dtype=dtype)
    expected, found = base.clone(), base.clone()
    for kernel, out in ((reference, expected), (cpu, found)):
        kernel.add_field_(out, Terms(seeds_of(1), torch.tensor([scale], dtype=torch.float64), "rademacher"), Place(1))
    assert same(expected.nan_to_num(7.0), found.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_storage_is_to_nearest_even(dtype):
    """Every finite pattern plus half a unit in its last place, a hair less and a hair more."""
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    base = patterns[patterns.isfinite()]
    _, exponent = torch.frexp(base.double())
    precision, smallest = (8, -133) if dtype == torch.bfloat16 else (11, -24)
    unit = torch.exp2((exponent - precision).clamp(min=smallest).double())
    for part in (0.5, 0.5 - 2**-10, 0.5 + 2**-10, 1.5):
        table = (unit * part).float()
        expected, found = torch.empty_like(base), torch.empty_like(base)
        for kernel, out in ((reference, expected), (cpu, found)):
            kernel.materialize_sketch_(out, base, table, 5, 0, Place(1))
        assert same(expected, found)
        assert not torch.equal(found, base)


def test_other_storage_is_served_by_the_definition():
    out = torch.zeros(50).to(torch.float8_e4m3fn)
    assert not cpu.supports(out.dtype)
    kernels.add_field_(out, seeds_of(1), torch.tensor([0.5], dtype=torch.float64), "rademacher", 1)
    assert out.float().abs().unique().tolist() == [0.5]
