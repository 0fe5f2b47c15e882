"""The Triton programs: one pass over memory each, no atomic operation, a fixed order for every sum.

A program of the first three owns a tile of elements; a program of the projection owns 32 totals and walks the
gradient in order, so that its float64 sums do not depend on the schedule of the device.
"""

from __future__ import annotations

import triton
import triton.language as tl

from covector.kernels.cuda.fields import BLOCKS, binomial, normal, rounded, signs_of_words, word_of_element

__all__ = ["materialize_sketch", "project_sketch", "sum_rademacher", "sum_values"]


@triton.jit
def _tile_of_signs(start):  # type: ignore[no-untyped-def]
    """The tile of this program: its first block, its blocks, and its elements in rows of 32."""
    first = (start.to(tl.int64) // (128 * BLOCKS) + tl.program_id(0)) * BLOCKS
    line = tl.arange(0, 4 * BLOCKS)[:, None] * 32 + tl.arange(0, 32)[None, :]
    return first, first + tl.arange(0, BLOCKS).to(tl.int64), line


@triton.jit
def _store_sum(out, base, place, mask, shift):  # type: ignore[no-untyped-def]
    """``out = base + shift`` in the type of ``shift``, rounded to storage once."""
    value = tl.load(base + place, mask=mask, other=0.0).to(shift.dtype) + shift
    tl.store(out + place, rounded(value, out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["start", "count", "seed_count", "field", "stream", "step"])
def sum_rademacher(  # type: ignore[no-untyped-def]
    out,
    base,
    start,
    count,
    seeds,
    coefficients,
    seed_count,
    field,
    stream,
    step,
    factor,
    WORK: tl.constexpr,
):
    """``out = base + factor * sum_k coefficients[k] * signs(seeds[k])`` in the type of the coefficients."""
    first, block, line = _tile_of_signs(start)
    place = first * 128 + line - start.to(tl.int64)
    mask = (place >= 0) & (place < count)
    total = tl.zeros([4 * BLOCKS, 32], coefficients.dtype.element_ty)
    for k in range(seed_count):
        bits = signs_of_words(block, field, stream, step, tl.load(seeds + k))
        coefficient = tl.load(coefficients + k)
        total += tl.where(bits == 1, -coefficient, coefficient)
    shift = total.to(WORK) * tl.load(factor).to(WORK)
    _store_sum(out, base, place, mask, shift)


@triton.jit(do_not_specialize=["start", "count", "seed_count", "field", "stream", "step"])
def sum_values(  # type: ignore[no-untyped-def]
    out,
    base,
    start,
    count,
    seeds,
    coefficients,
    seed_count,
    field,
    stream,
    step,
    factor,
    WORK: tl.constexpr,
    NORMAL: tl.constexpr,
    EXACT: tl.constexpr,
):
    """As :func:`sum_rademacher`, for the laws that take numbers instead of bits."""
    PER_BLOCK: tl.constexpr = 4 if NORMAL else 2
    TILE: tl.constexpr = PER_BLOCK * BLOCKS * 8
    start = start.to(tl.int64)
    tile = start // TILE + tl.program_id(0)
    block = tile * (BLOCKS * 8) + tl.arange(0, BLOCKS * 8).to(tl.int64)
    place = tile * TILE + tl.arange(0, TILE) - start
    mask = (place >= 0) & (place < count)
    total = tl.zeros([TILE], coefficients.dtype.element_ty)
    for k in range(seed_count):
        coefficient = tl.load(coefficients + k)
        if NORMAL:
            z = normal(block, field, stream, step, tl.load(seeds + k)).to(WORK)
        else:
            z = binomial(block, field, stream, step, tl.load(seeds + k))
            if not EXACT:
                z = z.to(WORK) * 0.25
        total += z.to(total.dtype) * coefficient
    shift = total.to(WORK) * tl.load(factor).to(WORK)
    _store_sum(out, base, place, mask, shift)


@triton.jit(do_not_specialize=["table_size", "shift", "start", "count", "seed", "field", "stream", "step"])
def materialize_sketch(  # type: ignore[no-untyped-def]
    out,
    base,
    table,
    table_size,
    shift,
    start,
    count,
    seed,
    field,
    stream,
    step,
    WORK: tl.constexpr,
):
    """``out = base + signs * table``."""
    first, block, line = _tile_of_signs(start)
    place = first * 128 + line - start.to(tl.int64)
    mask = (place >= 0) & (place < count)
    # one wide remainder a program; the rest fits narrow integers
    entry = ((first * 128 + shift) % table_size).to(tl.int32) + line
    step_ = tl.load(table + entry % table_size, mask=mask, other=0.0)
    bits = signs_of_words(block, field, stream, step, seed)
    _store_sum(out, base, place, mask, tl.where(bits == 1, -step_, step_).to(WORK))


@triton.jit(do_not_specialize=["table_size", "shift", "start", "count", "seed", "field", "stream", "step"])
def project_sketch(  # type: ignore[no-untyped-def]
    totals,
    table_size,
    gradient,
    shift,
    start,
    count,
    seed,
    field,
    stream,
    step,
    BUCKETS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """``totals += signs * gradient`` for 32 totals, each in the order of the elements."""
    start = start.to(tl.int64)
    bucket = tl.program_id(0) * BUCKETS + tl.arange(0, BUCKETS)
    owned = bucket < table_size
    total = tl.load(totals + bucket, mask=owned, other=0.0)
    period = (start + shift) // table_size
    last = (start + count - 1 + shift) // table_size
    while period <= last:
        # several loads under way at a time; the sums stay in order
        for ahead in tl.static_range(UNROLL):
            element = (period + ahead) * table_size + bucket - shift
            place = element - start
            mask = owned & (place >= 0) & (place < count)
            value = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float64)
            bits = word_of_element(element, field, stream, step, seed)
            total = tl.where(mask, total + tl.where(bits == 1, -value, value), total)
        period += UNROLL
    tl.store(totals + bucket, total, mask=owned)
