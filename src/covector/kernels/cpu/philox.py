"""Philox 4x32-10 on a vector of consecutive blocks, as LLVM instructions."""

from __future__ import annotations

from collections.abc import Sequence
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


def philox(b: ir.IRBuilder, block: ir.Value, counter: Sequence[ir.Value], lanes: int = BLOCKS) -> list[ir.Value]:
    """Words ``w0..w3`` of blocks ``block, block + 1, ...``, each a vector of ``lanes`` 32-bit integers.

    ``counter`` is field, stream, step and seed, as 64-bit integers.
    """
    field, stream, step, seed = counter
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
        # what carries out of the 32 bits is masked away with the operand of the next product
        k0, k1 = b.add(k0, ir.Constant(I64, _WEYL_0)), b.add(k1, ir.Constant(I64, _WEYL_1))
    return [b.trunc(c, vector(I32, lanes)) for c in (c0, c1, c2, c3)]


@intrinsic
def words_of_16_blocks(_typing: Any, words: Any, block: Any, field: Any, stream: Any, step: Any, seed: Any) -> Any:
    """Store the 64 words of 16 consecutive blocks at address ``words``, in the order of the elements."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        address, block, *counter = arguments
        w0, w1, w2, w3 = philox(b, block, counter)
        write(b, address, interleave(b, interleave(b, w0, w1), interleave(b, w2, w3), run=2))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def interleave(b: ir.IRBuilder, left: ir.Value, right: ir.Value, run: int = 1) -> ir.Value:
    """``run`` lanes of the left, ``run`` of the right, and so on."""
    lanes = left.type.count
    order = [lanes * (i // run % 2) + i // (2 * run) * run + i % run for i in range(2 * lanes)]
    return b.shuffle_vector(left, right, ir.Constant(vector(I32, 2 * lanes), order))
