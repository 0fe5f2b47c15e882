"""Commit: all that one round changed. Applying commits in order is replaying the run, on any machine.

Frame ``CVFC``, version 1, little-endian::

    8 bytes run id, u32 round, f64 lr, u64 step units (the scale S of one-byte scalars; 0 unknown),
    table (see state), u16 entries; each:
        u16 client, u8 age (rounds it came late), u32 weight in 2**-16, payload (see payloads; count 0: no numbers)
    displacement of the server's step: u8 kind (0 none, 1 integers, 2 bytes); then
        1: u8 width, size x integer    2: u64 units of the scale, size x u8
    32 bytes SHA-256 of the ledger after the round

The ledger after is ``ledger + sum_client round(weight * units / 2**16) + displacement``: integers only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from covector.errors import ArgumentError, CorruptionError, MismatchError, ProtocolError
from covector.federated.header import PROTOCOL, RunHeader
from covector.federated.payloads import DENSE, Kind, Payload
from covector.federated.state import (
    integers_bytes,
    read_integers,
    read_table,
    table_bytes,
    weights_of,
    width_of,
)
from covector.gradients import Ledger, OneByte
from covector.gradients.framing import Reader, array_bytes, frame, unframe
from covector.random import derive

__all__ = ["Commit", "Displacement", "Entry", "Settings", "apply", "ids_of", "sealed", "step_ids", "units_of", "weigh"]

MAGIC = b"CVFC"
ONE = 1 << 16
# a step of more than 2**46 units would leave int64 when weighed
UNIT_LIMIT = 1 << 46
SCALE_RANGE = (1 << 8, 1 << 38)


@dataclass(frozen=True)
class Settings:
    """What a round fixes for its clients.

    Args:
        round: its number, from 1.
        lr: learning rate of the round.
        step_units: magnitude of code 64 in ledger units; 0 while unknown.
        table: probabilities of the seeds, ``None`` for uniform.
    """

    round: int
    lr: float
    step_units: int = 0
    table: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.lr < float("inf"):
            raise CorruptionError(f"lr={self.lr} is not a positive number")
        if self.step_units and not SCALE_RANGE[0] <= self.step_units <= SCALE_RANGE[1]:
            raise CorruptionError(f"step_units={self.step_units} is outside 2**8 .. 2**38")


@dataclass(frozen=True)
class Entry:
    """One client's part of a commit."""

    client: int
    weight: int
    payload: Payload | None
    age: int = 0


@dataclass(frozen=True)
class Displacement:
    """A server's step: int64 ledger units ``[size]``, or one-byte codes in units of a scale."""

    numbers: Tensor
    scale_units: int = 0

    def units(self) -> Tensor:
        """The step in ledger units."""
        return OneByte(self.scale_units).decode(self.numbers) if self.scale_units else self.numbers


@dataclass(frozen=True)
class Commit:
    """All that one round changed."""

    settings: Settings
    entries: tuple[Entry, ...]
    displacement: Displacement | None
    digest: str

    def payload(self, header: RunHeader, table_known: bool = False) -> bytes:
        """The bytes inside the frame, without the run id."""
        settings = self.settings
        parts = [
            struct.pack("<IdQ", settings.round, settings.lr, settings.step_units),
            table_bytes(settings.table, table_known),
            struct.pack("<H", len(self.entries)),
        ]
        empty = Payload(Kind.SCALARS, torch.zeros(0))
        for entry in self.entries:
            parts.append(struct.pack("<HBI", entry.client, entry.age, entry.weight))
            parts.append((entry.payload or empty).to_bytes(header.pool))
        parts.append(_displacement_bytes(self.displacement))
        return b"".join([*parts, bytes.fromhex(self.digest)])

    def to_bytes(self, header: RunHeader) -> bytes:
        """The commit as a message."""
        return frame(MAGIC, PROTOCOL, header.id + self.payload(header))

    @classmethod
    def from_bytes(cls, data: bytes, header: RunHeader) -> Commit:
        """The commit in ``data``.

        Raises:
            CorruptionError: truncated, changed or inconsistent.
            ProtocolError: it belongs to another run.
        """
        reader = Reader(unframe(data, MAGIC, PROTOCOL))
        if bytes(reader.take(8)) != header.id:
            raise ProtocolError("the commit belongs to another run")
        commit, known = read_commit(reader, header)
        reader.end()
        if known:
            raise CorruptionError("a commit that leaves its table out")
        return commit


def read_commit(reader: Reader, header: RunHeader) -> tuple[Commit, bool]:
    """``(commit, whether its table is one the receiver must have)``."""
    round, lr, step_units = reader.unpack("<IdQ")
    table, known = read_table(reader, header.pool)
    settings = Settings(round, lr, step_units, table)
    (count,) = reader.unpack("<H")
    entries = []
    for _ in range(count):
        client, age, weight = reader.unpack("<HBI")
        payload = Payload.read(reader, header.pool)
        if weight > ONE or age >= round:
            raise CorruptionError(f"entry of client {client} with weight {weight} and age {age} in round {round}")
        entries.append(Entry(client, weight, payload if payload.numbers.numel() else None, age))
    displacement = _read_displacement(reader, header.pool.size)
    return Commit(settings, tuple(entries), displacement, bytes(reader.take(32)).hex()), known


def _displacement_bytes(displacement: Displacement | None) -> bytes:
    if displacement is None:
        return b"\x00"
    if displacement.scale_units:
        return struct.pack("<BQ", 2, displacement.scale_units) + array_bytes(displacement.numbers)
    width = width_of(displacement.numbers)
    return struct.pack("<BB", 1, width) + integers_bytes(displacement.numbers, width)


def _read_displacement(reader: Reader, size: int) -> Displacement | None:
    (kind,) = reader.unpack("<B")
    if kind == 0:
        return None
    if kind == 1:
        (width,) = reader.unpack("<B")
        return Displacement(read_integers(reader, width, size))
    (units,) = reader.unpack("<Q")
    if kind != 2 or not SCALE_RANGE[0] <= units <= SCALE_RANGE[1]:
        raise CorruptionError(f"displacement of kind {kind} with a scale of {units} units")
    return Displacement(reader.array(torch.uint8, size), units)


def step_ids(header: RunHeader, settings: Settings, client: int, count: int) -> list[int]:
    """Ids of a client's ``count`` steps in a round: a pure function of the run key, round, client and step.

    >>> from covector.gradients import SeedPool
    >>> header, settings = RunHeader("00" * 32, SeedPool(1, 8), 0.1), Settings(1, 0.1)
    >>> step_ids(header, settings, 0, 3) == step_ids(header, settings, 0, 5)[:3]
    True
    """
    seed = derive(header.key, "steps", settings.round, client)
    if header.method == "sketch":
        # the ids that ZerothOrder(directions=pool, seed=seed) draws in its steps 0 .. count - 1
        return [header.pool.draw(derive(seed, "direction", step), 1)[0] for step in range(count)]
    return header.pool.draw(seed, count, weights_of(settings.table))


def factor(header: RunHeader, settings: Settings) -> float:
    """Ledger units of a scalar of 1: a displacement ``-lr rho`` in kseed, the gradient itself in a sketch run."""
    return (1.0 if header.method == "sketch" else -settings.lr) * 2.0**header.quantum


def units_of(header: RunHeader, settings: Settings, payload: Payload) -> Tensor:
    """Ledger units (int64) of a payload of scalars; the same integers on every machine.

    fp32 scalars are multiplied in float64 and rounded to nearest even; bytes are decoded through integers.
    """
    if payload.kind in DENSE:
        raise ProtocolError("coordinates where scalars were expected")
    if payload.kind == Kind.UNITS:
        return payload.numbers.clamp(-UNIT_LIMIT, UNIT_LIMIT)
    if payload.kind == Kind.BYTES:
        if not settings.step_units:
            raise ProtocolError(f"one-byte scalars in round {settings.round}, whose scale is unknown")
        return OneByte(settings.step_units).decode(payload.numbers)
    wide = torch.nan_to_num(payload.numbers.double() * factor(header, settings), 0.0, 0.0, 0.0)
    return wide.clamp(-UNIT_LIMIT, UNIT_LIMIT).round().to(torch.int64)


def ids_of(header: RunHeader, settings: Settings, client: int, payload: Payload) -> list[int]:
    """Ids of a payload's scalars: those sent, or those derived."""
    if payload.ids is not None:
        return payload.ids.tolist()
    return step_ids(header, settings, client, payload.numbers.numel())


def weigh(units: Tensor, weight: int) -> Tensor:
    """``units * weight / 2**16`` rounded to nearest, ties up: exact int64.

    >>> weigh(torch.tensor([3, -3]), 1 << 15).tolist()
    [2, -1]
    """
    return (units * weight + (ONE >> 1)) >> 16


def apply(ledger: Ledger, commit: Commit, header: RunHeader, check: bool = True) -> Ledger:
    """The ledger after ``commit``; the one passed in is not changed.

    Raises:
        MismatchError: the result's digest is not the commit's.
        CorruptionError: ids outside the pool or sums that leave 62 bits.

    >>> from covector.gradients import SeedPool
    >>> header = RunHeader("00" * 32, SeedPool(1, 8), 0.5, code="fp32", ids="derived")
    >>> entry = Entry(0, 1 << 16, Payload(Kind.SCALARS, torch.tensor([1.0, -1.0])))
    >>> after = apply(header.ledger(), Commit(Settings(1, 0.5), (entry,), None, "00" * 32), header, check=False)
    >>> after.values().abs().max().item()
    0.5
    """
    after = ledger.copy()
    round = commit.settings.round
    try:
        for entry in commit.entries:
            if entry.payload is not None:
                ids = ids_of(header, commit.settings, entry.client, entry.payload)
                units = weigh(units_of(header, commit.settings, entry.payload), entry.weight)
                after.apply(str(entry.client), round - entry.age, ids, units)
        if commit.displacement is not None:
            after.add_coordinates_(commit.displacement.units())
    except (ArgumentError, MismatchError) as error:
        raise CorruptionError(f"commit {round} cannot be applied: {error}") from error
    if check and after.digest() != commit.digest:
        raise MismatchError(f"after round {round} the ledger is {after.digest()}, the commit says {commit.digest}")
    return after


def sealed(ledger: Ledger, commit: Commit, header: RunHeader) -> tuple[Commit, Ledger]:
    """The commit with the digest of the ledger it leads to, and that ledger."""
    after = apply(ledger, commit, header, check=False)
    return replace(commit, digest=after.digest()), after
