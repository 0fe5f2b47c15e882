"""Philox 4x32-10 on a vector of consecutive blocks, as LLVM instructions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from covector.kernels.cpu.vectors import I32, I64, constant, intrinsic, iota, splat, vector, write

__all__ = ["BLOCKS", "interleave", "philox", "words_of_16_blocks"]

# blocks computed at a time, one a lane
BLOCKS = 16

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = 0xFFFFFFFF


def philox(
    b: ir.IRBuilder,
    block: ir.Value,
    field: ir.Value,
    stream: ir.Value,
    step: ir.Value,
    seed: ir.Value,
    lanes: int = BLOCKS,
) -> list[ir.Value]:
    """Words ``w0..w3`` of blocks ``block, block + 1, ...``, each a vector of ``lanes`` 32-bit integers."""
    low = constant(I64, _LOW, lanes)
    half = constant(I64, 32, lanes)
    multiplier_0, multiplier_1 = constant(I64, _MULTIPLIER_0, lanes), constant(I64, _MULTIPLIER_1, lanes)

    def scalar_low(value: ir.Value) -> ir.Value:
        return b.and_(value, ir.Constant(I64, _LOW))

    c0 = b.and_(b.add(splat(b, block, lanes), iota(I64, lanes)), low)
    c1, c2, c3 = (splat(b, scalar_low(value), lanes) for value in (field, stream, step))
    k0, k1 = scalar_low(seed), b.lshr(seed, ir.Constant(I64, 32))
    for _ in range(10):
        # 64-bit lanes hold 32-bit words: masked operands make this the one-instruction 32 x 32 -> 64 product
        product_0, product_1 = b.mul(b.and_(c0, low), multiplier_0), b.mul(b.and_(c2, low), multiplier_1)
        mixed_0, mixed_1 = b.xor(c1, splat(b, k0, lanes)), b.xor(c3, splat(b, k1, lanes))
        c0, c1 = b.xor(b.lshr(product_1, half), mixed_0), product_1
        c2, c3 = b.xor(b.lshr(product_0, half), mixed_1), product_0
        k0 = scalar_low(b.add(k0, ir.Constant(I64, _WEYL_0)))
        k1 = scalar_low(b.add(k1, ir.Constant(I64, _WEYL_1)))
    return [b.trunc(c, vector(I32, lanes)) for c in (c0, c1, c2, c3)]


@intrinsic
def words_of_16_blocks(
    _typing: Any, words: Any, block: Any, field: Any, stream: Any, step: Any, seed: Any
) -> Any:
    """Store the 64 words of 16 consecutive blocks at address ``words``, in the order of the elements."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        address, *counter = arguments
        w0, w1, w2, w3 = philox(b, *counter)
        first, second = interleave(b, w0, w1), interleave(b, w2, w3)
        order = [32 * (i % 4 // 2) + 2 * (i // 4) + i % 2 for i in range(4 * BLOCKS)]
        write(b, address, b.shuffle_vector(first, second, ir.Constant(vector(I32, 4 * BLOCKS), order)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


def interleave(b: ir.IRBuilder, even: ir.Value, odd: ir.Value) -> ir.Value:
    """``even[0], odd[0], even[1], odd[1], ...``."""
    lanes = even.type.count
    order = [i // 2 + lanes * (i % 2) for i in range(2 * lanes)]
    return b.shuffle_vector(even, odd, ir.Constant(vector(I32, 2 * lanes), order))
