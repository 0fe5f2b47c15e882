"""One byte a number: a sign, seven bits of logarithmic magnitude, unbiased rounding, exact integer decoding.

Code ``c`` in 0..127 (the sign is the top bit) stands for zero if ``c = 0`` and else for the magnitude
``S * 2**((c - 64) / 8)``: a grid of steps of 9 % from ``0.0043 S`` to ``234 S``. Decoding is a table of 128
integers in the unit of the receiver, computed without floating point, so that every machine adds the same
integers. Encoding rounds up or down at random, with the probability that makes the mean exact.

Source: the idea of one byte a scalar is Zelikman et al., "Just one byte (per gradient)", 2023; this code
differs from theirs, which needs nine bits and is never decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.random import Stream, uniform

__all__ = ["OneByte"]

# round(2**(j / 8) * 2**30): the eight steps of an octave, as integers so that no machine rounds differently
_OCTAVE = (1073741824, 1170923762, 1276901417, 1392470869, 1518500250, 1655936265, 1805811301, 1969251188)
_ONE = 30


def _magnitude(code: int, scale_units: int) -> int:
    octave, step = divmod(code - 64, 8)
    shift = _ONE - octave
    return (scale_units * _OCTAVE[step] + (1 << (shift - 1))) >> shift


class OneByte:
    """The one-byte code with the scale ``S = scale_units`` quanta.

    Args:
        scale_units: magnitude of code 64 in the receiver's integer unit, from 2**8 to 2**48; below 2**12
            the smallest codes begin to coincide, which costs precision but no bias.

    Raises:
        ArgumentError: ``scale_units`` outside that range.

    >>> code = OneByte(1 << 20)
    >>> code.decode(code.encode(torch.tensor([0.0, 2.0**20, -(2.0**21)]), seed=0)).tolist()
    [0, 1048576, -2097152]
    """

    def __init__(self, scale_units: int) -> None:
        if not 1 << 8 <= scale_units <= 1 << 48:
            raise ArgumentError("scale_units", scale_units, "an integer from 2**8 to 2**48 (choose a finer quantum)")
        self.scale_units = int(scale_units)
        self.grid = torch.tensor([0, *(_magnitude(c, self.scale_units) for c in range(1, 128))], dtype=torch.int64)

    def encode(self, values: Tensor, seed: int, start: int = 0) -> Tensor:
        """Codes of ``values`` given in the integer unit (real numbers): uint8 of the same shape.

        Args:
            values: floating tensor; magnitudes above the grid are clipped to its end (234 S).
            seed: seed of the rounding; number ``start + i`` of its stream rounds value i.
            start: where in the stream to begin.

        Returns:
            uint8 codes whose decoded mean over seeds is ``values``.

        Raises:
            NonFiniteError: a value is NaN or infinite.
        """
        wide = values.detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(wide).all()):
            raise NonFiniteError("cannot encode NaN or infinity in one byte; skip the step that produced it")
        flat = wide.abs().reshape(-1)
        grid = self.grid.double()
        lower = (torch.searchsorted(grid, flat, right=True) - 1).clamp(0, 126)
        gap = grid[lower + 1] - grid[lower]
        chance = ((flat - grid[lower]) / gap).clamp(0.0, 1.0)
        up = uniform(seed, flat.numel(), stream=Stream.ROUNDING, start=start) < chance
        codes = lower + up
        negative = (wide.reshape(-1) < 0) & (codes > 0)
        return (codes + 128 * negative).to(torch.uint8).view(values.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """Integers (int64) in the unit of ``scale_units`` for uint8 ``codes``, the same on every machine."""
        wide = codes.to(torch.int64)
        magnitude = self.grid.to(codes.device)[wide & 127]
        return torch.where(wide >= 128, -magnitude, magnitude)
