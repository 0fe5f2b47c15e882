"""The random fields in plain torch: the definition of every number.

A *field* gives every element of every tensor a number that depends on nothing but
``(seed, tensor name, element index, stream, step)``. It is read from Philox 4x32-10 (Salmon, Moraes, Dror
and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) at

    counter = (block, word of the tensor name, stream, step),    key = the 64 bits of the seed,

so that any slice of any tensor is generated without the rest, in any order, on any device.

=============  ==================  =========================================================
distribution   elements a block    element ``i`` of a block with words ``w0..w3``
=============  ==================  =========================================================
rademacher     128                 ``1 - 2 * bit (i mod 32) of word (i div 32)``
binomial       2                   ``(popcount(w[2i]) + popcount(w[2i+1]) - 32) / 4``
normal         4                   Box-Muller of ``(w0, w1)`` and of ``(w2, w3)``
=============  ==================  =========================================================

The first two are integers (in units of 1 and 1/4), so sums of them are exact. The third uses only
operations that IEEE 754 rounds correctly (+ - * / sqrt), in a fixed order, so it too has the same bits
everywhere as long as multiply and add are not contracted into one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from covector.kernels.operands import Place

__all__ = [
    "ELEMENTS_PER_BLOCK",
    "UNIT_EXPONENT",
    "field_integers",
    "field_values",
    "philox",
    "words",
]

ELEMENTS_PER_BLOCK = {"rademacher": 128, "binomial": 2, "normal": 4}
# the integer laws count in units of 2**-UNIT_EXPONENT
UNIT_EXPONENT = {"rademacher": 0, "binomial": 2}

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = 0xFFFFFFFF


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox 4x32-10 of ``counter``: int64 ``[n, 4]`` holding 32-bit words, to int64 ``[n, 4]`` likewise.

    >>> [hex(w) for w in philox(torch.zeros(1, 4, dtype=torch.int64), (0, 0))[0].tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(10):
        # the products wrap modulo 2**64 in int64; shift and mask still read the two halves exactly
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        high_0, high_1 = (product_0 >> 32) & _LOW, (product_1 >> 32) & _LOW
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, product_1 & _LOW, high_0 ^ c3 ^ k1, product_0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return torch.stack((c0, c1, c2, c3), dim=-1)


def words(
    seed: int,
    first_block: int,
    blocks: int,
    field: int = 0,
    stream: int = 0,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The 32-bit words of blocks ``first_block .. first_block + blocks - 1``: int64 ``[blocks, 4]``."""
    block = torch.arange(first_block, first_block + blocks, dtype=torch.int64, device=device)
    rest = torch.tensor([field & _LOW, stream & _LOW, step & _LOW], dtype=torch.int64, device=device)
    counter = torch.cat((block[:, None] & _LOW, rest.expand(blocks, 3)), dim=1)
    return philox(counter, (seed & _LOW, (seed >> 32) & _LOW))


def _blocks_of(
    seed: int, distribution: str, count: int, place: Place, device: torch.device | str
) -> tuple[Tensor, int]:
    per_block = ELEMENTS_PER_BLOCK[distribution]
    field, start, stream, step = place
    first = start // per_block
    last = (start + count - 1) // per_block
    return words(seed, first, last - first + 1, field, stream, step, device), start - first * per_block


def field_integers(
    seed: int, distribution: str, count: int, place: Place = Place(), device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` elements of an integer law from ``place.start`` on, in its own units: int64 ``[count]``."""
    if count == 0:
        return torch.zeros(0, dtype=torch.int64, device=device)
    block, skip = _blocks_of(seed, distribution, count, place, device)
    if distribution == "rademacher":
        shifts = torch.arange(32, dtype=torch.int64, device=device)
        values = 1 - 2 * ((block[..., None] >> shifts) & 1).reshape(-1)
    else:
        values = _popcount(block).reshape(-1, 2).sum(-1) - 32
    return values[skip : skip + count]


def _popcount(word: Tensor) -> Tensor:
    """Number of set bits of 32-bit words held in int64: sums of pairs, of nibbles, of bytes."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24) & 0xFF


def _log_unit(k: Tensor) -> Tensor:
    """``log(k * 2**-24)`` for float32 integers ``1 <= k <= 2**24``, IEEE-exact operations in fixed order."""
    bits = k.view(torch.int32)
    exponent = (bits >> 23) - 127
    mantissa = ((bits & 0x007FFFFF) | 0x3F800000).view(torch.float32)
    large = mantissa > 1.41421356
    mantissa = torch.where(large, mantissa * 0.5, mantissa)
    exponent = torch.where(large, exponent + 1, exponent) - 24
    f = mantissa - 1.0
    s = f / (f + 2.0)
    z = s * s
    series = z * (2 / 9)
    series = (series + 2 / 7) * z
    series = (series + 2 / 5) * z
    series = (series + 2 / 3) * z
    return exponent.to(torch.float32) * math.log(2.0) + (s * 2.0 + s * series)


def _cos_sin_turn(k: Tensor) -> tuple[Tensor, Tensor]:
    """``cos`` and ``sin`` of ``2 pi k * 2**-24`` for int64 ``0 <= k < 2**24``, the quadrant in integers."""
    centered = k + (1 << 21)
    quadrant = (centered >> 22) & 3
    angle = ((centered & ((1 << 22) - 1)) - (1 << 21)).to(torch.float32) * (2 * math.pi / (1 << 24))
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
    c, s = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    c = torch.where((quadrant == 1) | (quadrant == 2), -c, c)
    s = torch.where(quadrant >= 2, -s, s)
    return c, s


def _box_muller(block: Tensor) -> Tensor:
    """Four standard normals a block: ``[n, 4]`` words to float32 ``[4 n]``."""
    pair = block.reshape(-1, 2)
    squared = _log_unit(((pair[:, 0] >> 8) + 1).to(torch.float32)) * -2.0
    # the vector library behind torch.sqrt misses the nearest float32 in one case of six; a float64 root
    # within 4 units in its last place always rounds to the right one
    radius = torch.sqrt(squared.to(torch.float64)).to(torch.float32)
    cosine, sine = _cos_sin_turn(pair[:, 1] >> 8)
    return torch.stack((radius * cosine, radius * sine), dim=1).reshape(-1)


def field_values(
    seed: int, distribution: str, count: int, place: Place = Place(), device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` elements of a field of mean 0 and variance 1 from ``place.start`` on: float32 ``[count]``."""
    if distribution == "normal":
        if count == 0:
            return torch.zeros(0, device=device)
        block, skip = _blocks_of(seed, distribution, count, place, device)
        return _box_muller(block)[skip : skip + count]
    integers = field_integers(seed, distribution, count, place, device)
    return integers.to(torch.float32) * 2.0 ** -UNIT_EXPONENT[distribution]
