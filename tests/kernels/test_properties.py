"""What must hold for any arguments: equality with the definition, slices, order, linearity, transposition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covector import kernels
from covector.kernels import cpu, reference
from covector.kernels.operands import Place, Terms

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
COUNTS, STARTS = st.integers(0, 5000), st.integers(0, 2**35)
SEEDS, WORDS = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
SIZES, SHIFTS = st.integers(1, 5000), st.integers(0, 2**32 - 1)
some = settings(max_examples=25, deadline=None)


def signed(seed):
    return seed - (1 << 64) * (seed >> 63)


def values(count, dtype, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(dtype)


@some
@given(
    DTYPES, COUNTS, STARTS, st.lists(SEEDS, max_size=5), WORDS, st.sampled_from(["rademacher", "binomial", "normal"])
)
def test_sums_of_fields_equal_the_definition(dtype, count, start, seeds, field, distribution):
    scales = values(len(seeds), torch.float64, 1)
    expected, found = values(count, dtype), values(count, dtype)
    chosen = torch.tensor([signed(seed) for seed in seeds], dtype=torch.int64)
    for kernel, out in ((reference, expected), (cpu, found)):
        kernel.add_field_(out, Terms(chosen, scales, distribution), Place(field, start, 1, field))
    assert torch.equal(expected, found)


@some
@given(DTYPES, COUNTS, STARTS, SEEDS, WORDS, SIZES, SHIFTS)
def test_sketches_equal_the_definition(dtype, count, start, seed, field, size, shift):
    base, table = values(count, dtype), values(size, reference.work_dtype(dtype), 1)
    results = []
    for kernel in (reference, cpu):
        out, totals = torch.empty_like(base), torch.zeros(size, dtype=torch.float64)
        kernel.materialize_sketch_(out, base, table, signed(seed), shift % size, Place(field, start))
        kernel.project_sketch_(totals, base, signed(seed), shift % size, Place(field, start))
        results.append((out, totals))
    assert all(torch.equal(expected, found) for expected, found in zip(*results, strict=True))


@some
@given(st.integers(2, 5000), st.data(), SEEDS, SIZES, st.sampled_from(["rademacher", "binomial", "normal"]))
def test_pieces_equal_the_whole(count, data, seed, size, distribution):
    cut = data.draw(st.integers(1, count - 1))
    chosen, scales = torch.tensor([signed(seed), 5]), torch.tensor([0.3, -1.7], dtype=torch.float64)
    table = values(size, torch.float32, 1)
    whole, pieces = values(count, torch.float32), values(count, torch.float32)
    for out, parts in ((whole, [(0, count)]), (pieces, [(cut, count), (0, cut)])):
        for begin, end in parts:
            kernels.add_field_(out[begin:end], chosen, scales, distribution, 3, begin)
            kernels.materialize_sketch_(out[begin:end], out[begin:end], table, seed, 3, 11, begin)
    assert torch.equal(whole, pieces)


@some
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-(2**40), 2**40)), max_size=8), st.randoms(), DTYPES)
def test_the_order_of_exact_terms_does_not_matter(terms, shuffler, dtype):
    base, results = values(3000, dtype), []
    for _ in range(2):
        seeds, units = (torch.tensor([term[i] for term in terms], dtype=torch.int64) for i in (0, 1))
        out = torch.empty_like(base)
        kernels.materialize_seeded_(out, base, seeds, units, "rademacher", 35, 2)
        results.append(out)
        shuffler.shuffle(terms)
    assert torch.equal(*results)


@some
@given(COUNTS, STARTS, SEEDS, SIZES, SHIFTS)
def test_projection_is_the_transpose_of_materializing(count, start, seed, size, shift):
    gradient, table = values(count, torch.float64), values(size, torch.float64, 1)
    spread, totals = torch.zeros(count, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    kernels.materialize_sketch_(spread, spread, table, seed, 1, shift, start)
    kernels.project_sketch_(totals, gradient, seed, 1, shift, start)
    assert abs(float(spread @ gradient - totals @ table)) < 1e-9
