"""Frames: how everything that leaves memory is wrapped, and a reader that never trusts a length.

::

    offset  size  field
    0       4     magic, names what it is (``CVGR`` gradient, ``CVLG`` ledger, ...)
    4       2     version, little-endian unsigned
    6       4     length n of the payload in bytes, little-endian unsigned
    10      n     payload
    10 + n  4     CRC-32 of everything before it, little-endian unsigned
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from covector.errors import CorruptionError

__all__ = ["OVERHEAD", "Reader", "array_bytes", "frame", "text_bytes", "unframe"]

_HEAD = struct.Struct("<4sHI")
_CRC = struct.Struct("<I")
OVERHEAD = _HEAD.size + _CRC.size


def frame(magic: bytes, version: int, payload: bytes) -> bytes:
    """Wrap a payload with magic, version, length and checksum.

    >>> unframe(frame(b"TEST", 1, b"hello"), b"TEST", 1)
    b'hello'
    """
    head = _HEAD.pack(magic, version, len(payload)) + payload
    return head + _CRC.pack(zlib.crc32(head))


def unframe(data: bytes, magic: bytes, version: int) -> bytes:
    """The payload of a frame, after every check.

    Raises:
        CorruptionError: wrong magic, version, length or checksum; the message says which.
    """
    if len(data) < OVERHEAD:
        raise CorruptionError(f"{len(data)} bytes are too short for a frame of {magic.decode()!r} (truncated?)")
    seen_magic, seen_version, length = _HEAD.unpack_from(data)
    if seen_magic != magic:
        raise CorruptionError(f"the bytes start with {seen_magic!r}, expected {magic!r}")
    if seen_version != version:
        raise CorruptionError(f"version {seen_version} of {magic.decode()!r} is unknown here; expected {version}")
    if len(data) != length + OVERHEAD:
        raise CorruptionError(f"frame of {magic.decode()!r} says {length + OVERHEAD} bytes but has {len(data)}")
    if zlib.crc32(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise CorruptionError(f"checksum of {magic.decode()!r} does not match: the bytes were changed on the way")
    return data[_HEAD.size : -_CRC.size]


def text_bytes(text: str) -> bytes:
    """A string as two bytes of length and UTF-8.

    >>> Reader(text_bytes("w")).text()
    'w'
    """
    raw = text.encode()
    return struct.pack("<H", len(raw)) + raw


def array_bytes(tensor: Tensor) -> bytes:
    """The raw little-endian bytes of a tensor on any device.

    >>> array_bytes(torch.ones(1)).hex()
    '0000803f'
    """
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


class Reader:
    """Reads a payload front to back; asking for more than there is raises instead of allocating.

    >>> Reader(b"\\x01\\x02").unpack("<BB")
    (1, 2)
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if count < 0 or count > len(self._data) - self._at:
            raise CorruptionError(f"{count} bytes announced but {len(self._data) - self._at} left")
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """The next values of a :mod:`struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> str:
        """A string written by :func:`text_bytes`."""
        (count,) = self.unpack("<H")
        try:
            return bytes(self.take(count)).decode()
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a name is not UTF-8: {error}") from error

    def array(self, dtype: torch.dtype, count: int) -> Tensor:
        """``count`` numbers of ``dtype`` as a tensor of its own memory."""
        raw = self.take(count * dtype.itemsize)
        if count == 0:
            return torch.zeros(0, dtype=dtype)
        return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).copy()).view(dtype)

    def end(self) -> None:
        """Refuse bytes after the last field."""
        if self._at != len(self._data):
            raise CorruptionError(f"{len(self._data) - self._at} bytes after the end")
