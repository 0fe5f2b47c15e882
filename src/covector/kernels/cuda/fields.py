"""Philox and the three laws in Triton, with the constants and the order of operations of the definition.

Launch what uses these with ``enable_fp_fusion=False``: the normal law is exact only as long as no product and
sum are contracted into one operation.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

__all__ = ["BLOCKS", "binomial", "normal", "rounded", "signs_of_words", "split_seed", "word_of_element", "words"]

# Philox blocks of a program: 16 make a tile of 2048 signs
BLOCKS = tl.constexpr(16)

_LOG_2 = tl.constexpr(math.log(2.0))
_TURN = tl.constexpr(2 * math.pi / (1 << 24))


@triton.jit
def split_seed(seed):  # type: ignore[no-untyped-def]
    """The two 32-bit halves of a seed, low half first."""
    wide = seed.to(tl.int64)
    return (wide & 0xFFFFFFFF).to(tl.uint32), ((wide >> 32) & 0xFFFFFFFF).to(tl.uint32)


@triton.jit
def words(block, field, stream, step, seed):  # type: ignore[no-untyped-def]
    """Philox 4x32-10 of the given block numbers: four uint32 tensors of the shape of ``block``."""
    k0, k1 = split_seed(seed)
    c0 = (block & 0xFFFFFFFF).to(tl.uint32)
    c1 = tl.zeros_like(c0) + field.to(tl.uint32)
    c2 = tl.zeros_like(c0) + stream.to(tl.uint32)
    c3 = tl.zeros_like(c0) + step.to(tl.uint32)
    m0 = tl.full(c0.shape, 0xD2511F53, tl.uint32)
    m1 = tl.full(c0.shape, 0xCD9E8D57, tl.uint32)
    w0 = tl.full([], 0x9E3779B9, tl.uint32)
    w1 = tl.full([], 0xBB67AE85, tl.uint32)
    for _ in tl.static_range(10):
        high_0, high_1 = tl.umulhi(c0, m0), tl.umulhi(c2, m1)
        low_0, low_1 = c0 * m0, c2 * m1
        c0, c1 = high_1 ^ c1 ^ k0, low_1
        c2, c3 = high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + w0, k1 + w1
    return c0, c1, c2, c3


@triton.jit
def signs_of_words(block, field, stream, step, seed):  # type: ignore[no-untyped-def]
    """Bits of the signs of ``n`` blocks, int32 ``[4 n, 32]``: set is -1."""
    w0, w1, w2, w3 = words(block, field, stream, step, seed)
    ordered = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    return ((ordered[:, None] >> tl.arange(0, 32)[None, :].to(tl.uint32)) & 1).to(tl.int32)


@triton.jit
def word_of_element(element, field, stream, step, seed):  # type: ignore[no-untyped-def]
    """Bit of the sign of each element, int32, for elements in no particular order."""
    w0, w1, w2, w3 = words(element >> 7, field, stream, step, seed)
    place = (element >> 5) & 3
    word = tl.where(place == 0, w0, tl.where(place == 1, w1, tl.where(place == 2, w2, w3)))
    return ((word >> (element & 31).to(tl.uint32)) & 1).to(tl.int32)


@triton.jit
def _popcount(x):  # type: ignore[no-untyped-def]
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def binomial(block, field, stream, step, seed):  # type: ignore[no-untyped-def]
    """``popcount(64 bits) - 32`` of ``n`` blocks, int32 ``[2 n]``."""
    w0, w1, w2, w3 = words(block, field, stream, step, seed)
    return tl.interleave(_popcount(w0) + _popcount(w1), _popcount(w2) + _popcount(w3)) - 32


@triton.jit
def normal(block, field, stream, step, seed):  # type: ignore[no-untyped-def]
    """Box-Muller of ``n`` blocks, float32 ``[4 n]``."""
    w0, w1, w2, w3 = words(block, field, stream, step, seed)
    cosine_0, sine_0 = _box_muller(w0, w1)
    cosine_1, sine_1 = _box_muller(w2, w3)
    return tl.interleave(tl.interleave(cosine_0, cosine_1), tl.interleave(sine_0, sine_1))


@triton.jit
def _box_muller(length, turn):  # type: ignore[no-untyped-def]
    radius = tl.sqrt_rn(_log_unit(((length >> 8) + 1).to(tl.int32).to(tl.float32)) * -2.0)
    cosine, sine = _cos_sin_turn((turn >> 8).to(tl.int32))
    return radius * cosine, radius * sine


@triton.jit
def _log_unit(k):  # type: ignore[no-untyped-def]
    bits = k.to(tl.int32, bitcast=True)
    exponent = (bits >> 23) - 127
    mantissa = ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    large = mantissa > 1.41421356
    mantissa = tl.where(large, mantissa * 0.5, mantissa)
    exponent = tl.where(large, exponent + 1, exponent) - 24
    f = mantissa - 1.0
    s = tl.div_rn(f, f + 2.0)
    z = s * s
    series = z * (2 / 9)
    series = (series + 2 / 7) * z
    series = (series + 2 / 5) * z
    series = (series + 2 / 3) * z
    return exponent.to(tl.float32) * _LOG_2 + (s * 2.0 + s * series)


@triton.jit
def _cos_sin_turn(k):  # type: ignore[no-untyped-def]
    centered = k + 2097152
    quadrant = (centered >> 22) & 3
    angle = ((centered & 4194303) - 2097152).to(tl.float32) * _TURN
    z = angle * angle
    sine = z * (1 / 362880)
    sine = (sine - 1 / 5040) * z
    sine = (sine + 1 / 120) * z
    sine = (sine - 1 / 6) * z
    sine = angle + angle * sine
    cosine = z * (-1 / 3628800)
    cosine = (cosine + 1 / 40320) * z
    cosine = (cosine - 1 / 720) * z
    cosine = (cosine + 1 / 24) * z
    cosine = (cosine - 0.5) * z + 1.0
    odd = (quadrant & 1) == 1
    c, s = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    c = tl.where((quadrant == 1) | (quadrant == 2), -c, c)
    s = tl.where(quadrant >= 2, -s, s)
    return c, s


@triton.jit
def rounded(value, storage: tl.constexpr):  # type: ignore[no-untyped-def]
    """``value`` in the storage type, to nearest, ties to even: for bfloat16 in integers, as on the CPU."""
    if storage == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        kept = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
        # the carry could turn a NaN into an infinity
        kept = tl.where(value == value, kept, 0x7FC0)
        return kept.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return value.to(storage)
