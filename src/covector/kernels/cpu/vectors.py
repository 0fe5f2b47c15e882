"""LLVM vectors of 32 lanes: the bits of one Philox word beside the 32 elements they belong to.

The inner steps of the kernels are written as LLVM vector instructions instead of Python loops, because the
loop vectorizer does not find that bit ``j`` of a word selects lane ``j``: 0.9 ns an element against 0.2 ns.
The instructions name no processor; LLVM lowers them to AVX-512 (where a word *is* a mask register), AVX2,
SSE or NEON. None of them carries a fast-math flag, so a product and a sum are never contracted into one.

Storage is told by a numba scalar type, because numba has no bfloat16 and little float16:

========  ================  =====================
torch     numba tag         arithmetic happens in
========  ================  =====================
float32   ``float32``       float32
float64   ``float64``       float64
bfloat16  ``uint16``        float32
float16   ``int16``         float32
========  ================  =====================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types

__all__ = [
    "I1",
    "I16",
    "I32",
    "I64",
    "LANES",
    "SINGLE",
    "constant",
    "element_type",
    "intrinsic",
    "iota",
    "load",
    "offset",
    "read",
    "splat",
    "store",
    "vector",
    "widen",
    "work_type",
    "write",
]

LANES = 32

# numba's own annotation counts the typing context among the arguments of a call
intrinsic: Any = extending.intrinsic

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
SINGLE, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()


def vector(element: ir.Type, lanes: int = LANES) -> ir.VectorType:
    """The vector type of ``lanes`` elements."""
    return ir.VectorType(element, lanes)


def constant(element: ir.Type, value: float, lanes: int = LANES) -> ir.Constant:
    """``value`` in every lane."""
    return ir.Constant(vector(element, lanes), [value] * lanes)


def iota(element: ir.Type, lanes: int) -> ir.Constant:
    """``0, 1, 2, ...``."""
    return ir.Constant(vector(element, lanes), list(range(lanes)))


def splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int = LANES) -> ir.Value:
    """A scalar in every lane."""
    undefined = ir.Constant(vector(scalar.type, lanes), ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, constant(I32, 0, lanes))


def offset(b: ir.IRBuilder, address: ir.Value, index: ir.Value, size: int) -> ir.Value:
    """Address of element ``index`` of an array of ``size``-byte elements."""
    return b.add(address, b.mul(index, ir.Constant(I64, size)))


def read(b: ir.IRBuilder, address: ir.Value, element: ir.Type, lanes: int = LANES) -> ir.Value:
    """Load a vector from an address aligned to no more than its element."""
    kind = vector(element, lanes)
    return b.load(b.inttoptr(address, kind.as_pointer()), align=_BYTES[str(element)], typ=kind)


def write(b: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    """Store a vector to an address aligned to no more than its element."""
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=_BYTES[str(value.type.element)])


_BYTES = {"i16": 2, "i32": 4, "i64": 8, "half": 2, "float": 4, "double": 8}


def element_type(tag: types.Type) -> ir.Type:
    """What lies in memory: the LLVM type of a storage tag, or of a numba number type."""
    kinds = {
        types.float32: SINGLE,
        types.float64: DOUBLE,
        types.uint16: I16,
        types.int16: HALF,
        types.int32: I32,
        types.int64: I64,
    }
    return kinds[tag]


def work_type(tag: types.Type) -> ir.Type:
    """What arithmetic happens in: float64 for float64 storage, float32 for every narrower one."""
    return DOUBLE if tag == types.float64 else SINGLE


def load(b: ir.IRBuilder, address: ir.Value, tag: types.Type) -> ir.Value:
    """32 stored elements, widened exactly to the working type."""
    stored = read(b, address, element_type(tag))
    if tag == types.uint16:
        wide = b.zext(stored, vector(I32))
        return b.bitcast(b.shl(wide, constant(I32, 16)), vector(SINGLE))
    return widen(b, stored, work_type(tag))


def store(b: ir.IRBuilder, address: ir.Value, value: ir.Value, tag: types.Type) -> None:
    """Round 32 values of the working type to storage (nearest, ties to even) and store them."""
    if tag == types.uint16:
        value = _bfloat16_bits(b, value)
    elif tag == types.int16:
        value = b.fptrunc(value, vector(HALF))
    write(b, address, value)


def widen(b: ir.IRBuilder, value: ir.Value, element: ir.Type) -> ir.Value:
    """A floating vector in a type at least as wide."""
    return value if value.type.element == element else b.fpext(value, vector(element, value.type.count))


def _bfloat16_bits(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    bits = b.bitcast(value, vector(I32))
    odd = b.and_(b.lshr(bits, constant(I32, 16)), constant(I32, 1))
    # adding 0x7FFF, plus one where the kept half is odd, carries into it exactly when rounding goes up
    rounded = b.lshr(b.add(bits, b.add(odd, constant(I32, 0x7FFF))), constant(I32, 16))
    # the carry could turn a NaN into an infinity
    is_nan = b.fcmp_unordered("uno", value, value)
    return b.trunc(b.select(is_nan, constant(I32, 0x7FC0), rounded), vector(I16))
