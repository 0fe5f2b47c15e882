"""The binomial and the normal law of the reference, 64 elements at a time, as LLVM instructions."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from covector.kernels.cpu.philox import BLOCKS, interleave, philox
from covector.kernels.cpu.vectors import I32, I64, SINGLE, constant, intrinsic, vector, write

__all__ = ["draw_64"]


@intrinsic
def draw_64(_typing: Any, out: Any, part: Any, field: Any, stream: Any, step: Any, seed: Any, law: Any) -> Any:
    """Store elements ``64 part .. 64 part + 63`` of a field at address ``out``.

    The type of ``law`` tells which: int32 for ``popcount(64 bits) - 32``, float32 for standard normals.
    """
    make = _binomial if law == types.int32 else _normal

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        out, part, *counter, _ = arguments
        write(b, out, make(b, part, counter))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, law), generate


def _binomial(b: ir.IRBuilder, part: ir.Value, counter: list[ir.Value]) -> ir.Value:
    block = b.mul(part, ir.Constant(I64, 32))
    ones = [_lanewise(b, "llvm.ctpop.v32i32", word) for word in philox(b, block, counter, lanes=32)]
    return b.sub(interleave(b, b.add(ones[0], ones[1]), b.add(ones[2], ones[3])), constant(I32, 32, 64))


def _normal(b: ir.IRBuilder, part: ir.Value, counter: list[ir.Value]) -> ir.Value:
    w0, w1, w2, w3 = philox(b, b.mul(part, ir.Constant(I64, BLOCKS)), counter)
    return interleave(b, interleave(b, *_box_muller(b, w0, w1)), interleave(b, *_box_muller(b, w2, w3)), run=2)


def _single(value: float) -> ir.Constant:
    # llvmlite prints a float constant after rounding it to float32, as torch rounds a Python scalar
    return constant(SINGLE, value, BLOCKS)


def _integer(value: int) -> ir.Constant:
    return constant(I32, value, BLOCKS)


def _lanewise(b: ir.IRBuilder, name: str, value: ir.Value) -> ir.Value:
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(value.type, [value.type]), name)
    return b.call(function, [value])


def _box_muller(b: ir.IRBuilder, length: ir.Value, turn: ir.Value) -> tuple[ir.Value, ir.Value]:
    floats = vector(SINGLE, BLOCKS)
    uniform = b.sitofp(b.add(b.lshr(length, _integer(8)), _integer(1)), floats)
    squared = b.fmul(_log_unit(b, uniform), _single(-2.0))
    radius = _lanewise(b, "llvm.sqrt.v16f32", squared)
    cosine, sine = _cos_sin_turn(b, b.lshr(turn, _integer(8)))
    return b.fmul(radius, cosine), b.fmul(radius, sine)


def _log_unit(b: ir.IRBuilder, k: ir.Value) -> ir.Value:
    floats, integers = vector(SINGLE, BLOCKS), vector(I32, BLOCKS)
    bits = b.bitcast(k, integers)
    exponent = b.sub(b.lshr(bits, _integer(23)), _integer(127))
    mantissa = b.bitcast(b.or_(b.and_(bits, _integer(0x007FFFFF)), _integer(0x3F800000)), floats)
    large = b.fcmp_ordered(">", mantissa, _single(1.41421356))
    mantissa = b.select(large, b.fmul(mantissa, _single(0.5)), mantissa)
    exponent = b.sub(b.select(large, b.add(exponent, _integer(1)), exponent), _integer(24))
    f = b.fsub(mantissa, _single(1.0))
    s = b.fdiv(f, b.fadd(f, _single(2.0)))
    z = b.fmul(s, s)
    series = b.fmul(z, _single(2 / 9))
    for coefficient in (2 / 7, 2 / 5, 2 / 3):
        series = b.fmul(b.fadd(series, _single(coefficient)), z)
    whole = b.fmul(b.sitofp(exponent, floats), _single(math.log(2.0)))
    return b.fadd(whole, b.fadd(b.fmul(s, _single(2.0)), b.fmul(s, series)))


def _cos_sin_turn(b: ir.IRBuilder, k: ir.Value) -> tuple[ir.Value, ir.Value]:
    centered = b.add(k, _integer(1 << 21))
    quadrant = b.and_(b.lshr(centered, _integer(22)), _integer(3))
    remainder = b.sub(b.and_(centered, _integer((1 << 22) - 1)), _integer(1 << 21))
    angle = b.fmul(b.sitofp(remainder, vector(SINGLE, BLOCKS)), _single(2 * math.pi / (1 << 24)))
    z = b.fmul(angle, angle)
    sine = b.fmul(z, _single(1 / 362880))
    for coefficient in (-1 / 5040, 1 / 120, -1 / 6):
        sine = b.fmul(b.fadd(sine, _single(coefficient)), z)
    sine = b.fadd(angle, b.fmul(angle, sine))
    cosine = b.fmul(z, _single(-1 / 3628800))
    for coefficient in (1 / 40320, -1 / 720, 1 / 24):
        cosine = b.fmul(b.fadd(cosine, _single(coefficient)), z)
    cosine = b.fadd(b.fmul(b.fadd(cosine, _single(-0.5)), z), _single(1.0))
    odd = b.icmp_signed("!=", b.and_(quadrant, _integer(1)), _integer(0))
    cosine, sine = b.select(odd, sine, cosine), b.select(odd, cosine, sine)
    # the two middle quadrants: 1 and 2
    left = b.icmp_signed("!=", b.and_(b.add(quadrant, _integer(1)), _integer(2)), _integer(0))
    below = b.icmp_signed(">=", quadrant, _integer(2))
    return b.select(left, b.fneg(cosine), cosine), b.select(below, b.fneg(sine), sine)
