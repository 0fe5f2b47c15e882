"""Payloads: the numbers a client sends up, and what a commit keeps of them.

::

    u8 kind, u32 count, then
    1 EXPLICIT     count x id, count x f32         ids: u16 for up to 65536 seeds, u32 above, i64 for a sketch
    2 SCALARS      count x f32                     ids derived
    3 BYTES        count x u8                      ids derived; one-byte codes in units of the round's scale
    4 COORDINATES  count x f32                     the N numbers S^T g
    5 COORDINATES  count x bf16
    6 COORDINATES  f32 scale, count x u8
    7 UNITS        count x id, count x i64         final ledger units (only in commits)

Negative zero (-0.0, code 128) marks a step that the client skipped.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from covector.errors import CorruptionError
from covector.gradients import OneByte, Pool, SeedPool
from covector.gradients.framing import Reader, array_bytes

__all__ = ["Kind", "Payload", "coordinates", "read_coordinates"]

SKIPPED = 128
# unit of the one-byte grid of coordinates: their scale is a float, the grid stays integer
_GRID_UNITS = 1 << 40
_GRID_TOP = 2.0 ** (63 / 8)


class Kind(enum.IntEnum):
    """What a payload holds.

    >>> Kind.BYTES.value
    3
    """

    EXPLICIT = 1
    SCALARS = 2
    BYTES = 3
    COORDINATES = 4
    COORDINATES_BF16 = 5
    COORDINATES_BYTE = 6
    UNITS = 7


_DTYPES = {
    Kind.EXPLICIT: torch.float32,
    Kind.SCALARS: torch.float32,
    Kind.BYTES: torch.uint8,
    Kind.COORDINATES: torch.float32,
    Kind.COORDINATES_BF16: torch.bfloat16,
    Kind.COORDINATES_BYTE: torch.uint8,
    Kind.UNITS: torch.int64,
}
_WITH_IDS = (Kind.EXPLICIT, Kind.UNITS)
DENSE = (Kind.COORDINATES, Kind.COORDINATES_BF16, Kind.COORDINATES_BYTE)


def _id_dtype(pool: Pool) -> torch.dtype:
    if not isinstance(pool, SeedPool):
        return torch.int64
    return torch.uint16 if pool.size <= 1 << 16 else torch.uint32


@dataclass(frozen=True)
class Payload:
    """Numbers with their kind.

    Args:
        kind: what they are.
        numbers: a tensor ``[count]`` of the kind's dtype.
        ids: int64 ``[count]`` for EXPLICIT and UNITS.
        scale: for COORDINATES_BYTE.

    >>> payload = Payload(Kind.BYTES, torch.tensor([1, 2], dtype=torch.uint8))
    >>> payload.to_bytes(SeedPool(1, 8)).hex()
    '03020000000102'
    """

    kind: Kind
    numbers: Tensor
    ids: Tensor | None = None
    scale: float = 0.0

    def to_bytes(self, pool: Pool) -> bytes:
        """The payload's bytes; ``pool`` decides the width of ids."""
        parts = [struct.pack("<BI", self.kind, self.numbers.numel())]
        if self.ids is not None:
            parts.append(array_bytes(self.ids.to(_id_dtype(pool))))
        if self.kind == Kind.COORDINATES_BYTE:
            parts.append(struct.pack("<f", self.scale))
        return b"".join([*parts, array_bytes(self.numbers)])

    @classmethod
    def read(cls, reader: Reader, pool: Pool) -> Payload:
        """The next payload of ``reader``.

        Raises:
            CorruptionError: an unknown kind, or more numbers announced than there are.
        """
        number, count = reader.unpack("<BI")
        if number not in Kind._value2member_map_:
            raise CorruptionError(f"unknown payload kind {number}")
        kind, ids, scale = Kind(number), None, 0.0
        if kind in _WITH_IDS:
            ids = reader.array(_id_dtype(pool), count).to(torch.int64)
        if kind == Kind.COORDINATES_BYTE:
            (scale,) = reader.unpack("<f")
        return cls(kind, reader.array(_DTYPES[kind], count), ids, scale)

    def isfinite(self) -> bool:
        """Whether every number (and the scale) is finite."""
        wide = self.numbers.float() if self.numbers.is_floating_point() else self.numbers.double()
        return bool(torch.isfinite(wide).all()) and abs(self.scale) < float("inf")


def coordinates(values: Tensor, code: str, seed: int) -> Payload:
    """``values`` (float64 ``[N]``) as a payload in ``code``; ``seed`` drives the rounding of ``"byte"``.

    >>> coordinates(torch.tensor([0.5, -1.0]), "fp32", 0).numbers
    tensor([ 0.5000, -1.0000])
    """
    if code == "fp32":
        return Payload(Kind.COORDINATES, values.to(torch.float32))
    if code == "bf16":
        return Payload(Kind.COORDINATES_BF16, values.to(torch.bfloat16))
    scale = struct.unpack("<f", struct.pack("<f", float(values.abs().max()) / _GRID_TOP))[0] or 1.0
    codes = OneByte(_GRID_UNITS).encode(values.double() * (_GRID_UNITS / scale), seed)
    return Payload(Kind.COORDINATES_BYTE, codes, scale=scale)


def read_coordinates(payload: Payload) -> Tensor:
    """The numbers of a payload of coordinates, float64 ``[N]``.

    >>> read_coordinates(coordinates(torch.tensor([0.5, -1.0]), "fp32", 0))
    tensor([ 0.5000, -1.0000], dtype=torch.float64)
    """
    if payload.kind == Kind.COORDINATES_BYTE:
        return OneByte(_GRID_UNITS).decode(payload.numbers).double() * (payload.scale / _GRID_UNITS)
    return payload.numbers.double()
