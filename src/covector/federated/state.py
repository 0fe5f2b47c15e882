"""How the state of a run travels: a snapshot of its integers, or the log of commits that leads to it.

::

    snapshot   u32 round, u8 width w, size x signed little-endian integers of w bytes (w = 1 .. 8)
    log        u16 commits; each: u32 length, the payload of a COMMIT message (:mod:`covector.federated.commit`)
    table      u8 kind: 0 uniform; 1 size x f32 probabilities; 2 size x u8 preferences; 3 the receiver has it

A preference code c stands for the integer weight ``round(exp(c / 255) * 2**20)``, so that everybody draws the
same ids.
"""

from __future__ import annotations

import decimal
import functools
import struct

import numpy as np
import torch
from torch import Tensor

from covector.errors import CorruptionError
from covector.gradients import Ledger, Pool
from covector.gradients.framing import Reader, array_bytes

__all__ = ["integers_bytes", "preference_weights", "read_integers", "read_table", "table_bytes", "width_of"]

KNOWN = 3


@functools.cache
def preference_weights() -> Tensor:
    """The 256 integer weights of the preference codes, float64; correctly rounded, so the same everywhere.

    >>> preference_weights()[[0, 255]].tolist()
    [1048576.0, 2850325.0]
    """
    with decimal.localcontext() as context:
        context.prec = 40
        exact = [(decimal.Decimal(code) / 255).exp() * (1 << 20) for code in range(256)]
        return torch.tensor([int(x.to_integral_value(decimal.ROUND_HALF_EVEN)) for x in exact], dtype=torch.float64)


def weights_of(table: Tensor | None) -> Tensor | None:
    """The weights by which step ids are drawn, for any table."""
    if table is None:
        return None
    return preference_weights()[table.to(torch.int64)] if table.dtype == torch.uint8 else table.double()


def table_bytes(table: Tensor | None, known: bool = False) -> bytes:
    """A table of probabilities as bytes; ``known`` leaves its numbers out.

    >>> table_bytes(None).hex(), table_bytes(torch.zeros(2, dtype=torch.uint8)).hex()
    ('00', '020000')
    """
    if table is None:
        return b"\x00"
    if known:
        return bytes([KNOWN])
    return bytes([2 if table.dtype == torch.uint8 else 1]) + array_bytes(table)


def read_table(reader: Reader, pool: Pool) -> tuple[Tensor | None, bool]:
    """``(table, whether it must be known already)``."""
    (kind,) = reader.unpack("<B")
    if kind == 0 or kind == KNOWN:
        return None, kind == KNOWN
    if kind > KNOWN:
        raise CorruptionError(f"unknown table kind {kind}")
    table = reader.array(torch.float32 if kind == 1 else torch.uint8, pool.size)
    if kind == 1 and not (bool(torch.isfinite(table).all()) and bool((table >= 0).all()) and float(table.sum()) > 0):
        raise CorruptionError("a table of probabilities with negative, infinite or only zero entries")
    return table, False


def width_of(integers: Tensor) -> int:
    """Bytes a signed integer needs, for the largest of them.

    >>> width_of(torch.tensor([127])), width_of(torch.tensor([-129]))
    (1, 2)
    """
    largest = max(int(integers.max()), -int(integers.min()) - 1) if integers.numel() else 0
    return (largest.bit_length() + 8) // 8


def integers_bytes(integers: Tensor, width: int) -> bytes:
    """int64 as little-endian integers of ``width`` bytes.

    >>> integers_bytes(torch.tensor([-2, 3]), 2).hex()
    'feff0300'
    """
    wide = integers.contiguous().numpy().astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    return wide[:, :width].tobytes()


def read_integers(reader: Reader, width: int, count: int) -> Tensor:
    """``count`` integers of ``width`` bytes as int64 ``[count]``."""
    if not 1 <= width <= 8:
        raise CorruptionError(f"integers of {width} bytes; expected 1 to 8")
    raw = np.frombuffer(reader.take(count * width), dtype=np.uint8).reshape(count, width)
    wide = np.zeros((count, 8), dtype=np.uint8)
    wide[:, :width] = raw
    wide[:, width:] = np.where(raw[:, -1:] >= 128, 255, 0)
    return torch.from_numpy(wide.reshape(-1).view("<i8").astype(np.int64))


def snapshot_bytes(round: int, ledger: Ledger, plain: bool) -> bytes:
    """A snapshot; ``plain`` stores 4 or 8 bytes an integer, as the paper counts, else as few as fit."""
    width = width_of(ledger.coefficients)
    width = (4 if width <= 4 else 8) if plain else width
    return struct.pack("<IB", round, width) + integers_bytes(ledger.coefficients, width)


def read_snapshot(reader: Reader, ledger: Ledger) -> tuple[int, Ledger]:
    """``(round, ledger)``; ``ledger`` gives pool and quantum and is not changed."""
    round, width = reader.unpack("<IB")
    twin = Ledger(ledger.pool, ledger.quantum)
    twin.coefficients = read_integers(reader, width, ledger.pool.size)
    return round, twin
