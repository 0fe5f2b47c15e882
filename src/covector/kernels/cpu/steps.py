"""What happens to 32 elements at a time: the inner steps of the kernels, as LLVM vector instructions.

Every address is a plain integer. Bit ``j`` of a Philox word stands for the sign of lane ``j``: set is -1.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from covector.kernels.cpu import vectors
from covector.kernels.cpu.vectors import (
    I1,
    I32,
    I64,
    LANES,
    constant,
    element_type,
    intrinsic,
    offset,
    read,
    splat,
    vector,
    write,
)

__all__ = [
    "GROUPS",
    "accumulate_values",
    "accumulate_words",
    "add_signed",
    "add_signed_table",
    "add_total",
    "copy_bytes",
    "fill_group",
    "project_signed",
    "read_number",
    "scratch",
    "size_of",
    "write_number",
]

# groups of 32 elements whose sums stay in registers while the seeds go by
GROUPS = 4


def _signs(b: ir.IRBuilder, word: ir.Value) -> ir.Value:
    return b.bitcast(word, vector(I1))


def _word_at(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.load(b.inttoptr(address, I32.as_pointer()), typ=I32)


@intrinsic
def scratch(_typing: Any, size: Any) -> Any:
    """Address of ``size`` (a literal) bytes on the stack, aligned for the widest vector."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    count = size.literal_value

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, _arguments: Any) -> ir.Value:
        with b.goto_entry_block():
            memory = b.alloca(ir.ArrayType(ir.IntType(8), count))
            memory.align = 64
        return b.ptrtoint(memory, I64)

    return types.int64(size), generate


@intrinsic
def size_of(_typing: Any, tag: Any) -> Any:
    """Bytes of one stored element."""
    size = tag.bitwidth // 8

    def generate(_context: Any, _b: ir.IRBuilder, _signature: Any, _arguments: Any) -> ir.Value:
        return ir.Constant(I64, size)

    return types.int64(tag), generate


@intrinsic
def copy_bytes(_typing: Any, target: Any, source: Any, size: Any) -> Any:
    """``memcpy``."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        to, source, size = arguments
        byte = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(b, b.inttoptr(to, byte), b.inttoptr(source, byte), size, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def read_number(_typing: Any, address: Any, index: Any, tag: Any) -> Any:
    """Element ``index`` of an array of ``tag`` numbers."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        place = offset(b, arguments[0], arguments[1], tag.bitwidth // 8)
        return b.load(b.inttoptr(place, element_type(tag).as_pointer()), typ=element_type(tag))

    return tag(types.int64, types.int64, tag), generate


@intrinsic
def write_number(_typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Set element ``index`` of an array of numbers of the type of ``value``."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        place = offset(b, arguments[0], arguments[1], value.bitwidth // 8)
        b.store(arguments[2], b.inttoptr(place, element_type(value).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), generate


@intrinsic
def fill_group(_typing: Any, total: Any, value: Any) -> Any:
    """Set 32 numbers of the type of ``value``."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        write(b, arguments[0], splat(b, arguments[1]))
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def add_signed(_typing: Any, out: Any, word: Any, plus: Any, minus: Any, tag: Any) -> Any:
    """``out += plus`` or ``minus`` after the bit, in the working type."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        out, word, plus, minus, _ = arguments
        work = vectors.work_type(tag)
        if work == vectors.SINGLE:
            plus, minus = b.fptrunc(plus, work), b.fptrunc(minus, work)
        step = b.select(_signs(b, word), splat(b, minus), splat(b, plus))
        vectors.store(b, out, b.fadd(vectors.load(b, out, tag), step), tag)
        return context.get_dummy_value()

    return types.void(types.int64, types.int32, types.float64, types.float64, tag), generate


@intrinsic
def add_signed_table(_typing: Any, out: Any, base: Any, table: Any, word: Any, tag: Any) -> Any:
    """``out = base + sign * table``; the table is in the working type."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        out, base, table, word, _ = arguments
        step = read(b, table, vectors.work_type(tag))
        signed = b.select(_signs(b, word), b.fneg(step), step)
        vectors.store(b, out, b.fadd(vectors.load(b, base, tag), signed), tag)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int32, tag), generate


@intrinsic
def project_signed(_typing: Any, totals: Any, gradient: Any, word: Any, tag: Any) -> Any:
    """``totals += sign * gradient``; the totals are float64."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        totals, gradient, word, _ = arguments
        wide = vectors.widen(b, vectors.load(b, gradient, tag), ir.DoubleType())
        signed = b.select(_signs(b, word), b.fneg(wide), wide)
        write(b, totals, b.fadd(read(b, totals, ir.DoubleType()), signed))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int32, tag), generate


@intrinsic
def add_total(_typing: Any, out: Any, base: Any, total: Any, factor: Any, total_tag: Any, tag: Any) -> Any:
    """``out = base + total``, or ``base + factor * total`` for integer totals converted once."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        out, base, total, factor, _, _ = arguments
        work = vectors.work_type(tag)
        step = read(b, total, element_type(total_tag))
        if isinstance(total_tag, types.Integer):
            factor = factor if work == ir.DoubleType() else b.fptrunc(factor, work)
            step = b.fmul(b.sitofp(step, vector(work)), splat(b, factor))
        vectors.store(b, out, b.fadd(vectors.load(b, base, tag), step), tag)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float64, total_tag, tag), generate


@intrinsic
def accumulate_values(_typing: Any, total: Any, values: Any, coefficient: Any, value_tag: Any) -> Any:
    """``total += values * coefficient`` in the type of the coefficient."""
    tag = coefficient

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        total, values, coefficient, _ = arguments
        kind = element_type(tag)
        z, factor = read(b, values, element_type(value_tag)), splat(b, coefficient)
        if isinstance(tag, types.Integer):
            z = z if kind == I32 else b.sext(z, vector(kind))
            summed = b.add(read(b, total, kind), b.mul(z, factor))
        else:
            if isinstance(value_tag, types.Integer):
                z = b.fmul(b.sitofp(z, vector(kind)), constant(kind, 0.25))
            z = vectors.widen(b, z, kind)
            summed = b.fadd(read(b, total, kind), b.fmul(z, factor))
        write(b, total, summed)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, tag, value_tag), generate


@intrinsic
def accumulate_words(_typing: Any, total: Any, words: Any, row: Any, coefficients: Any, count: Any, tag: Any) -> Any:
    """For four groups of 32 at once, the sums in registers while ``count`` seeds go by.

    Integer totals gain the coefficient where the bit is set, floating ones gain it with the bit's sign.

    Args:
        total: totals of the four groups, ``tag`` numbers.
        words: four words a seed, the next seed's ``row`` bytes further on.
        coefficients: one ``tag`` number a seed.
    """
    size = tag.bitwidth // 8
    exact = isinstance(tag, types.Integer)
    kind = element_type(tag)

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        total, words, row, coefficients, count, _ = arguments
        targets = [b.add(total, ir.Constant(I64, LANES * size * g)) for g in range(GROUPS)]
        with b.goto_entry_block():
            sums = [b.alloca(vector(kind)) for _ in range(GROUPS)]
        for target, held in zip(targets, sums, strict=True):
            b.store(read(b, target, kind), held)
        with cgutils.for_range(b, count) as loop:
            pointer = b.inttoptr(offset(b, coefficients, loop.index, size), kind.as_pointer())
            step = splat(b, b.load(pointer, typ=kind))
            otherwise, plus = (constant(kind, 0), b.add) if exact else (step, b.fadd)
            selected = step if exact else b.fneg(step)
            for g, held in enumerate(sums):
                word = _word_at(b, b.add(b.add(words, b.mul(loop.index, row)), ir.Constant(I64, 4 * g)))
                gain = b.select(_signs(b, word), selected, otherwise)
                b.store(plus(b.load(held, typ=vector(kind)), gain), held)
        for target, held in zip(targets, sums, strict=True):
            write(b, target, b.load(held, typ=vector(kind)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, tag), generate
