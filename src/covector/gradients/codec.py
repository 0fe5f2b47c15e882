"""Gradients as bytes: one frame (magic ``CVGR``, version 1) whose payload begins with the kind and the codec.

::

    u8 kind (1 Dense, 2 Seeded, 3 Sketch, 4 LowRank), u8 codec (0 fp64, 1 fp32, 2 bf16, 3 byte), then
    Dense    u32 tensors; each: name (u16 length, UTF-8), u8 dimensions, u64 each dimension, numbers
    Seeded   u8 law (0 rademacher, 1 binomial, 2 normal), u32 K, K x i64 seeds, numbers
    Sketch   i64 key, u32 N, numbers
    LowRank  u32 matrices; each: name, u32 m, u32 n, u32 r, numbers of U, numbers of V;
             u8 has-rest; if 1: the payload of the rest
    numbers  fp64, fp32, bf16: as they are; byte: f32 scale, then one code a number
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from covector.errors import ArgumentError, CorruptionError, UnsupportedError
from covector.gradients.base import Gradient
from covector.gradients.dense import Dense
from covector.gradients.framing import Reader, array_bytes, frame, text_bytes, unframe
from covector.gradients.lowrank import LowRank
from covector.gradients.onebyte import OneByte
from covector.gradients.seeded import Seeded
from covector.gradients.sketch import Sketch
from covector.random import Distribution

__all__ = ["CODECS", "decode", "encode"]

MAGIC, VERSION = b"CVGR", 1
CODECS = ("fp64", "fp32", "bf16", "byte")
_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
_LAWS: tuple[Distribution, ...] = ("rademacher", "binomial", "normal")
# unit of the one-byte grid inside a gradient: its scale is a float, the grid itself stays integer
_GRID_UNITS = 1 << 40
_GRID_TOP = 2.0 ** (63 / 8)


def encode(gradient: Gradient, codec: str = "fp32", seed: int = 0) -> bytes:
    """Bytes of a gradient of any carrier.

    Args:
        gradient: the gradient.
        codec: ``"fp64"``, ``"fp32"``, ``"bf16"`` or ``"byte"`` (unbiased, scaled so that nothing is clipped).
        seed: seed of the rounding of ``"byte"``.

    Raises:
        ArgumentError: unknown codec.

    >>> g = Sketch(1, [1.0, -2.0]); decode(encode(g)) == g
    True
    """
    if codec not in CODECS:
        raise ArgumentError("codec", codec, "one of " + ", ".join(map(repr, CODECS)))
    return frame(MAGIC, VERSION, _payload(gradient, codec, seed))


def decode(data: bytes) -> Gradient:
    """The gradient in ``data``.

    Raises:
        CorruptionError: truncated, changed, of an unknown version or inconsistent; nothing was built.
    """
    reader = Reader(unframe(data, MAGIC, VERSION))
    gradient = _read(reader)
    reader.end()
    return gradient


def _payload(gradient: Gradient, codec: str, seed: int) -> bytes:
    code = CODECS.index(codec)
    if isinstance(gradient, Dense):
        parts = [struct.pack("<BBI", 1, code, len(gradient.params))]
        for name, tensor in gradient.params.items():
            shape = struct.pack(f"<B{tensor.ndim}Q", tensor.ndim, *tensor.shape)
            parts += [text_bytes(name), shape, _numbers(tensor, codec, seed)]
    elif isinstance(gradient, Seeded):
        law = _LAWS.index(gradient.distribution)
        parts = [struct.pack("<BBBI", 2, code, law, gradient.seeds.numel()), array_bytes(gradient.seeds)]
        parts.append(_numbers(gradient.coefficients, codec, seed))
    elif isinstance(gradient, Sketch):
        parts = [struct.pack("<BBqI", 3, code, gradient.key, gradient.x.numel()), _numbers(gradient.x, codec, seed)]
    elif isinstance(gradient, LowRank):
        parts = [struct.pack("<BBI", 4, code, len(gradient.factors))]
        for name, (u, v) in gradient.factors.items():
            shape = struct.pack("<III", u.shape[0], v.shape[0], u.shape[1])
            parts += [text_bytes(name), shape, _numbers(u, codec, seed), _numbers(v, codec, seed)]
        parts.append(struct.pack("<B", gradient.rest is not None))
        if gradient.rest is not None:
            parts.append(_payload(gradient.rest, codec, seed))
    else:
        raise UnsupportedError(f"{type(gradient).__name__} has no byte format")
    return b"".join(parts)


def _numbers(values: Tensor, codec: str, seed: int) -> bytes:
    if codec != "byte":
        return array_bytes(values.to(_DTYPES[codec]))
    peak = float(values.detach().abs().max()) if values.numel() else 0.0
    scale = struct.unpack("<f", struct.pack("<f", peak / _GRID_TOP))[0] or 1.0
    units = values.detach().to("cpu", torch.float64) * (_GRID_UNITS / scale)
    return struct.pack("<f", scale) + array_bytes(OneByte(_GRID_UNITS).encode(units, seed))


def _read_numbers(reader: Reader, codec: str, count: int) -> Tensor:
    if codec != "byte":
        values = reader.array(_DTYPES[codec], count)
        return values.float() if codec == "bf16" else values
    scale = float(reader.unpack("<f")[0])
    units = OneByte(_GRID_UNITS).decode(reader.array(torch.uint8, count))
    return (units.double() * (scale / _GRID_UNITS)).float()


def _read(reader: Reader, nested: bool = False) -> Gradient:
    kind, code = reader.unpack("<BB")
    if code >= len(CODECS):
        raise CorruptionError(f"unknown codec number {code}")
    codec = CODECS[code]
    if kind == 1:
        (tensors,) = reader.unpack("<I")
        return Dense(dict(_read_tensor(reader, codec) for _ in range(tensors)))
    if kind == 2:
        law, count = reader.unpack("<BI")
        if law >= len(_LAWS):
            raise CorruptionError(f"unknown distribution number {law}")
        return Seeded(reader.array(torch.int64, count), _read_numbers(reader, codec, count), _LAWS[law])
    if kind == 3:
        key, count = reader.unpack("<qI")
        if count == 0:
            raise CorruptionError("a sketch of width 0")
        return Sketch(key, _read_numbers(reader, codec, count))
    if kind == 4 and not nested:
        (matrices,) = reader.unpack("<I")
        factors = dict(_read_factors(reader, codec) for _ in range(matrices))
        (has_rest,) = reader.unpack("<B")
        return LowRank(factors, _read(reader, nested=True) if has_rest else None)
    raise CorruptionError(f"unknown gradient kind number {kind}")


def _read_tensor(reader: Reader, codec: str) -> tuple[str, Tensor]:
    name = reader.text()
    (dimensions,) = reader.unpack("<B")
    shape = reader.unpack(f"<{dimensions}Q")
    count = 1
    for size in shape:
        count *= size
    return name, _read_numbers(reader, codec, count).view(shape)


def _read_factors(reader: Reader, codec: str) -> tuple[str, tuple[Tensor, Tensor]]:
    name = reader.text()
    m, n, r = reader.unpack("<III")
    return name, (_read_numbers(reader, codec, m * r).view(m, r), _read_numbers(reader, codec, n * r).view(n, r))
