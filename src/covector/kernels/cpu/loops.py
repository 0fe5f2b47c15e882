"""The loops over a flat range of elements: plain numba, around the vector steps.

All addresses are integers, so that hundreds of small tensors cost no array wrappers. A range is walked in
*tiles* of 2048 elements (the signs of 16 Philox blocks), aligned to the tensor, and a tile in *groups* of 32.
Where a range begins or ends inside a group, the group is lent a scratch of 32 elements, copied back after.

A loop takes the address at which its numbers lie packed, eight bytes each, in the order in which it reads them, and
tags that tell types; the last one is the storage's. ``start`` is the index within the named tensor of the element at
the address given.
"""

from __future__ import annotations

from typing import Any

from numba import int32, njit

from covector.kernels.cpu.laws import draw_64
from covector.kernels.cpu.philox import words_of_16_blocks
from covector.kernels.cpu.steps import (
    accumulate_values,
    accumulate_words,
    add_signed,
    add_signed_table,
    add_total,
    copy_bytes,
    fill_group,
    project_signed,
    read_number,
    scratch,
    size_of,
    write_number,
)

__all__ = [
    "add_one_seed",
    "materialize_sketch",
    "project_sketch",
    "sum_rademacher",
    "sum_values",
]

_I32 = int32(0)


def _numbers(call: int, first: int) -> tuple[int, int, int, int]:
    """Numbers ``first .. first + 3`` of a call."""
    return (
        read_number(call, first, 0),
        read_number(call, first + 1, 0),
        read_number(call, first + 2, 0),
        read_number(call, first + 3, 0),
    )


_four: Any = njit(_numbers)


def add_one_seed(call: int, tag: Any) -> None:
    """``out += scale * signs``, the case with nothing to sum."""
    out, start, count, seed = _four(call, 0)
    field, stream, step, _ = _four(call, 4)
    scale = read_number(call, 7, 0.0)
    size = size_of(tag)
    words, edge = scratch(256), scratch(256)
    # a scale of -0.0 sums to +0.0
    plus, minus = 0.0 + scale, 0.0 - scale
    stop = start + count
    for tile in range(start >> 11, (stop + 2047) >> 11):
        words_of_16_blocks(words, tile << 4, field, stream, step, seed)
        low, high = max(start, tile << 11), min(stop, (tile + 1) << 11)
        for group in range(low >> 5, (high + 31) >> 5):
            begin, end = max(low, group << 5), min(high, (group + 1) << 5)
            place, bytes_ = out + (begin - start) * size, (end - begin) * size
            whole = end - begin == 32
            target = place if whole else edge
            if not whole:
                copy_bytes(edge + (begin & 31) * size, place, bytes_)
            add_signed(target, read_number(words, group & 63, _I32), plus, minus, tag)
            if not whole:
                copy_bytes(place, edge + (begin & 31) * size, bytes_)


@njit
def _add_totals(
    out: int, base: int, start: int, low: int, high: int, total: int, factor: float, total_tag: Any, tag: Any
) -> None:
    size = size_of(tag)
    edge = scratch(256)
    for group in range(low >> 5, (high + 31) >> 5):
        begin, end = max(low, group << 5), min(high, (group + 1) << 5)
        place, bytes_ = (begin - start) * size, (end - begin) * size
        whole = end - begin == 32
        source = base + place if whole else edge
        target = out + place if whole else edge
        if not whole:
            copy_bytes(edge + (begin & 31) * size, base + place, bytes_)
        add_total(target, source, total + ((group & 63) << 5) * size_of(total_tag), factor, total_tag, tag)
        if not whole:
            copy_bytes(out + place, edge + (begin & 31) * size, bytes_)


def sum_rademacher(call: int, total_tag: Any, tag: Any) -> None:
    """``out = base + factor * sum_k coefficients[k] z(seeds[k])``; ``initial`` is what a sum begins with."""
    out, base, start, count = _four(call, 0)
    seeds, coefficients, seed_count, field = _four(call, 4)
    stream, step = read_number(call, 8, 0), read_number(call, 9, 0)
    factor, initial = read_number(call, 10, 0.0), read_number(call + 88, 0, total_tag)
    size = size_of(initial)
    total, words = scratch(2048 * 8), scratch(64 * 256)
    stop = start + count
    for tile in range(start >> 11, (stop + 2047) >> 11):
        low, high = max(start, tile << 11), min(stop, (tile + 1) << 11)
        first, last = (low & 2047) >> 7, (high - (tile << 11) + 127) >> 7
        for group in range(first << 2, last << 2):
            fill_group(total + (group << 5) * size, initial)
        for begin in range(0, seed_count, 64):
            some = min(64, seed_count - begin)
            for k in range(some):
                seed = read_number(seeds, begin + k, 0)
                words_of_16_blocks(words + (k << 8), tile << 4, field, stream, step, seed)
            for quad in range(first, last):
                here = coefficients + begin * size
                accumulate_words(total + (quad << 7) * size, words + (quad << 4), 256, here, some, initial)
        _add_totals(out, base, start, low, high, total, factor, initial, tag)


def sum_values(call: int, total_tag: Any, law: Any, tag: Any) -> None:
    """As :func:`sum_rademacher`, for the laws that take numbers instead of bits."""
    out, base, start, count = _four(call, 0)
    seeds, coefficients, seed_count, field = _four(call, 4)
    stream, step = read_number(call, 8, 0), read_number(call, 9, 0)
    factor, initial = read_number(call, 10, 0.0), read_number(call + 88, 0, total_tag)
    size, wide = size_of(initial), size_of(law)
    total, values = scratch(2048 * 8), scratch(256)
    stop = start + count
    for tile in range(start >> 11, (stop + 2047) >> 11):
        low, high = max(start, tile << 11), min(stop, (tile + 1) << 11)
        for part in range(low >> 6, (high + 63) >> 6):
            here = total + ((part & 31) << 6) * size
            for half in range(2):
                fill_group(here + (half << 5) * size, initial)
            for k in range(seed_count):
                draw_64(values, part, field, stream, step, read_number(seeds, k, 0), law)
                coefficient = read_number(coefficients, k, initial)
                for half in range(2):
                    accumulate_values(here + (half << 5) * size, values + (half << 5) * wide, coefficient, law)
        _add_totals(out, base, start, low, high, total, factor, initial, tag)


def materialize_sketch(call: int, work: Any, tag: Any) -> None:
    """``out = base + signs * table``, run by run: within a run the table does not wrap around."""
    out, base, table, table_size = _four(call, 0)
    shift, start, count, seed = _four(call, 4)
    field, stream, step = read_number(call, 8, 0), read_number(call, 9, 0), read_number(call, 10, 0)
    size, wide = size_of(tag), size_of(work)
    words, edge, part = scratch(256), scratch(256), scratch(256)
    stop = start + count
    held = -1
    for period in range((start + shift) // table_size, (stop + shift + table_size - 1) // table_size):
        origin = period * table_size - shift
        low, high = max(start, origin), min(stop, origin + table_size)
        for group in range(low >> 5, (high + 31) >> 5):
            if group >> 6 != held:
                held = group >> 6
                words_of_16_blocks(words, held << 4, field, stream, step, seed)
            begin, end = max(low, group << 5), min(high, (group + 1) << 5)
            place, entry = (begin - start) * size, table + (begin - origin) * wide
            skip, length = begin & 31, end - begin
            whole = length == 32
            if not whole:
                copy_bytes(edge + skip * size, base + place, length * size)
                copy_bytes(part + skip * wide, entry, length * wide)
            source, target, entries = (base + place, out + place, entry) if whole else (edge, edge, part)
            add_signed_table(target, source, entries, read_number(words, group & 63, _I32), tag)
            if not whole:
                copy_bytes(out + place, edge + skip * size, length * size)


def project_sketch(call: int, tag: Any) -> None:
    """``totals += signs * gradient`` for the buckets of one slice, each in the order of the elements."""
    totals, table_size, bucket, bucket_stop = _four(call, 0)
    gradient, shift, start, count = _four(call, 4)
    seed, field, stream, step = _four(call, 8)
    size = size_of(tag)
    words, edge, part = scratch(256), scratch(256), scratch(256)
    stop = start + count
    held = -1
    for period in range((start + shift) // table_size, (stop + shift + table_size - 1) // table_size):
        origin = period * table_size - shift
        low, high = max(start, origin + bucket), min(stop, origin + bucket_stop)
        for group in range(low >> 5, (high + 31) >> 5):
            if group >> 6 != held:
                held = group >> 6
                words_of_16_blocks(words, held << 4, field, stream, step, seed)
            word = read_number(words, group & 63, _I32)
            begin, end = max(low, group << 5), min(high, (group + 1) << 5)
            place, entry = gradient + (begin - start) * size, totals + ((begin - origin) << 3)
            if end - begin == 32:
                project_signed(entry, place, word, tag)
            elif end > begin:
                # -0.0 is what leaves every addend, zeros included, as it is
                fill_group(part, -0.0)
                copy_bytes(edge + (begin & 31) * size, place, (end - begin) * size)
                project_signed(part, edge, word, tag)
                for j in range(end - begin):
                    addend = read_number(part, (begin & 31) + j, 0.0)
                    write_number(entry, j, read_number(entry, j, 0.0) + addend)
