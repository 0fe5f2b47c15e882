"""What the names of :mod:`covector.optim.operations` mean for one number, and how numbers lie in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types

__all__ = ["SCALARS", "load", "pointer", "store"]

# numba's own annotation counts the typing context among the arguments of a call
_intrinsic: Any = extending.intrinsic
_I16, _I32, _SINGLE = ir.IntType(16), ir.IntType(32), ir.FloatType()


@_intrinsic
def pointer(_typing: Any, address: Any, like: Any) -> Any:
    """An integer address as a pointer to numbers of the type of ``like``."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), generate


@_intrinsic
def load(_typing: Any, stored: Any) -> Any:
    """A stored number in the type of the arithmetic; 16-bit words are bfloat16."""
    half = stored == types.uint16

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        (value,) = arguments
        return b.bitcast(b.shl(b.zext(value, _I32), ir.Constant(_I32, 16)), _SINGLE) if half else value

    return (types.float32 if half else stored)(stored), generate


@_intrinsic
def store(_typing: Any, value: Any, like: Any) -> Any:
    """A number rounded to storage: to nearest, ties to even, for bfloat16."""
    half = like == types.uint16

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        value = arguments[0]
        if not half:
            return value
        bits = b.bitcast(value, _I32)
        odd = b.and_(b.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        rounded = b.lshr(b.add(bits, b.add(odd, ir.Constant(_I32, 0x7FFF))), ir.Constant(_I32, 16))
        # the carry could turn a NaN into an infinity
        nan = b.fcmp_unordered("uno", value, value)
        return b.trunc(b.select(nan, ir.Constant(_I32, 0x7FC0), rounded), _I16)

    return like(value, like), generate


@njit(inline="always")
def _maximum(x: Any, y: Any) -> Any:
    # false for a NaN on either side; y is then taken unless x is the NaN
    return x if x > y or x != x else y


@njit(inline="always")
def _minimum(x: Any, y: Any) -> Any:
    return x if x < y or x != x else y


@njit(inline="always")
def _sign(x: Any) -> Any:
    zero = x - x
    return np.copysign(x / x, x) if x != zero else zero


@_intrinsic
def _power_of_two(_typing: Any, exponent: Any) -> Any:
    """``2.0 ** exponent`` as float32, for whole numbers in the normal range."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        biased = b.add(b.trunc(arguments[0], _I32), ir.Constant(_I32, 127))
        return b.bitcast(b.shl(biased, ir.Constant(_I32, 23)), _SINGLE)

    return types.float32(exponent), generate


_F = np.float32
_LOG2E, _HIGH, _LOW = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4)
_HALF, _ONE, _BOUND = _F(0.5), _F(1.0), _F(87.0)
# coefficients of the Taylor series of exp on [-ln 2 / 2, ln 2 / 2]: the seventh power is below half an ulp there
_C2, _C3, _C4, _C5, _C6 = (_F(1 / math.factorial(k)) for k in range(2, 7))
_C7 = _F(1 / math.factorial(7))


@njit(inline="always")
def _exponential(x: Any) -> Any:
    """exp in float32 without a call, so that the loop around it is vectorized."""
    x = min(max(x, -_BOUND), _BOUND)
    whole = np.floor(x * _LOG2E + _HALF)
    rest = x - whole * _HIGH - whole * _LOW
    tail = _C4 + rest * (_C5 + rest * (_C6 + rest * _C7))
    series = _ONE + rest * (_ONE + rest * (_C2 + rest * (_C3 + rest * tail)))
    return series * _power_of_two(np.int64(whole))


@extending.register_jitable
def _sigmoid_single(x: Any) -> Any:
    return _ONE / (_ONE + _exponential(-x))


@extending.register_jitable
def _sigmoid_double(x: Any) -> Any:
    return 1.0 / (1.0 + math.exp(-x))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@extending.overload(_sigmoid, inline="always")
def _overload_sigmoid(x: Any) -> Any:
    # numba compares signatures with their annotations, so that these cannot be lambdas
    def single(x: Any) -> Any:
        return _sigmoid_single(x)

    def double(x: Any) -> Any:
        return _sigmoid_double(x)

    return single if x == types.float32 else double


SCALARS: dict[str, Any] = {
    "sqrt": math.sqrt,
    "sign": _sign,
    "sigmoid": _sigmoid,
    "maximum": _maximum,
    "minimum": _minimum,
}
