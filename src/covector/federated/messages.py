"""The messages between server and clients, all framed (magic, version, length, CRC-32; see framing).

Little-endian, version 1. ``run id`` is the first 8 bytes of the header's SHA-256 (see header)::

    CVFJ JOIN      8 run id (zeros: unknown), u32 round whose state the client has, plus one (0: none)
    CVFR ROUND     8 run id, u16 length of the run header's frame (0: not sent), the frame,
                   u32 round, u16 client (the receiver's number), f64 lr, u64 step units, table (see state),
                   u8 what follows: 0 nothing (the state is empty or known), 1 snapshot, 2 log (see state)
    CVFG GRADS     8 run id, u32 round, u16 client, u32 examples, u32 batches, f32 mean loss,
                   payload (see payloads)
    CVFC COMMIT    see commit
    CVFH HEADER    see header

Nothing is allocated by an announced length before the bytes are there, and nothing but numbers is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from covector.errors import CorruptionError, ProtocolError
from covector.federated.commit import Commit, Settings, read_commit
from covector.federated.header import PROTOCOL, RunHeader
from covector.federated.payloads import Payload
from covector.federated.state import read_snapshot, read_table, snapshot_bytes, table_bytes
from covector.gradients import Ledger
from covector.gradients.framing import Reader, frame, unframe

__all__ = ["Grads", "Join", "Round", "check_version"]

JOIN, ROUND, GRADS = b"CVFJ", b"CVFR", b"CVFG"
_MAGICS = (JOIN, ROUND, GRADS, b"CVFC", b"CVFH")


def check_version(data: bytes) -> bytes:
    """The magic of a message, after its version was checked.

    Raises:
        ProtocolError: one of our messages in another version of the protocol.
        CorruptionError: not one of our messages.

    >>> check_version(Join(bytes(8), 0).to_bytes())
    b'CVFJ'
    """
    if len(data) < 6 or data[:4] not in _MAGICS:
        raise CorruptionError(f"{len(data)} bytes that start with {data[:4]!r} are no message of this protocol")
    (version,) = struct.unpack_from("<H", data, 4)
    if version != PROTOCOL:
        raise ProtocolError(f"the message is of protocol version {version}; this is version {PROTOCOL}")
    return data[:4]


@dataclass(frozen=True)
class Join:
    """A client asks to take part, or for the state after it lost its own."""

    run: bytes
    have: int

    def to_bytes(self) -> bytes:
        """The message."""
        return frame(JOIN, PROTOCOL, self.run + struct.pack("<I", self.have))

    @classmethod
    def from_bytes(cls, data: bytes) -> Join:
        """The message in ``data``."""
        reader = Reader(unframe(data, JOIN, PROTOCOL))
        run, (have,) = bytes(reader.take(8)), reader.unpack("<I")
        reader.end()
        return cls(run, have)


@dataclass(frozen=True)
class Round:
    """A round opens: its settings and the way to the state it starts from.

    Args:
        settings: round, learning rate, scale, table.
        client: the receiver's number.
        state: ``None``, ``(round, ledger)``, or a list of ``(commit, table left out)``.
        header: the run's header, for a client that may not have it.
    """

    settings: Settings
    client: int
    state: tuple[int, Ledger] | list[tuple[Commit, bool]] | None
    header: RunHeader | None = None

    def to_bytes(self, header: RunHeader) -> bytes:
        """The message in the run of ``header``."""
        settings = self.settings
        sent = self.header.to_bytes() if self.header is not None else b""
        head = struct.pack("<IHdQ", settings.round, self.client, settings.lr, settings.step_units)
        parts = [header.id, struct.pack("<H", len(sent)), sent, head, table_bytes(settings.table)]
        return frame(ROUND, PROTOCOL, b"".join([*parts, state_bytes(self.state, header)]))

    @staticmethod
    def brings_header(data: bytes) -> bool:
        """Whether the message in ``data`` carries the run's header."""
        reader = Reader(unframe(data, ROUND, PROTOCOL))
        reader.take(8)
        return bool(reader.unpack("<H")[0])

    @classmethod
    def from_bytes(cls, data: bytes, header: RunHeader | None) -> Round:
        """The message in ``data``; ``header`` is the reader's own run, or ``None`` to take the one sent.

        Raises:
            CorruptionError: truncated, changed or inconsistent.
            ProtocolError: another run, or no header known and none sent.
        """
        reader = Reader(unframe(data, ROUND, PROTOCOL))
        run, (length,) = bytes(reader.take(8)), reader.unpack("<H")
        sent = RunHeader.from_bytes(bytes(reader.take(length))) if length else None
        header = header or sent
        if header is None:
            raise ProtocolError("the message carries no run header and none is known here; send JOIN first")
        if run != header.id or (sent is not None and sent.id != header.id):
            raise ProtocolError(f"the message belongs to run {run.hex()}, this is run {header.id.hex()}")
        round, client, lr, step_units = reader.unpack("<IHdQ")
        table, known = read_table(reader, header.pool)
        if known or round < 1:
            raise CorruptionError("a round without its number or its table")
        state = _read_state(reader, header)
        reader.end()
        return cls(Settings(round, lr, step_units, table), client, state, sent)


def state_bytes(state: tuple[int, Ledger] | list[tuple[Commit, bool]] | None, header: RunHeader) -> bytes:
    """The last block of ROUND."""
    if state is None:
        return b"\x00"
    if isinstance(state, tuple):
        return b"\x01" + snapshot_bytes(*state, plain=header.ids == "explicit")
    parts = [struct.pack("<BH", 2, len(state))]
    for commit, known in state:
        body = commit.payload(header, known)
        parts += [struct.pack("<I", len(body)), body]
    return b"".join(parts)


def _read_state(reader: Reader, header: RunHeader) -> tuple[int, Ledger] | list[tuple[Commit, bool]] | None:
    (kind,) = reader.unpack("<B")
    if kind == 0:
        return None
    if kind == 1:
        return read_snapshot(reader, header.ledger())
    if kind != 2:
        raise CorruptionError(f"unknown state kind {kind}")
    (count,) = reader.unpack("<H")
    commits = []
    for _ in range(count):
        (length,) = reader.unpack("<I")
        inner = Reader(bytes(reader.take(length)))
        commits.append(read_commit(inner, header))
        inner.end()
    return commits


@dataclass(frozen=True)
class Grads:
    """What a client found in a round."""

    round: int
    client: int
    examples: int
    batches: int
    loss: float
    payload: Payload

    def to_bytes(self, header: RunHeader) -> bytes:
        """The message in the run of ``header``."""
        head = struct.pack("<IHIIf", self.round, self.client, self.examples, self.batches, self.loss)
        return frame(GRADS, PROTOCOL, header.id + head + self.payload.to_bytes(header.pool))

    @classmethod
    def from_bytes(cls, data: bytes, header: RunHeader) -> Grads:
        """The message in ``data``.

        Raises:
            CorruptionError: truncated, changed or inconsistent.
            ProtocolError: it belongs to another run.
        """
        reader = Reader(unframe(data, GRADS, PROTOCOL))
        run = bytes(reader.take(8))
        if run != header.id:
            raise ProtocolError(f"the message belongs to run {run.hex()}, this is run {header.id.hex()}")
        round, client, examples, batches, loss = reader.unpack("<IHIIf")
        payload = Payload.read(reader, header.pool)
        reader.end()
        return cls(round, client, examples, batches, loss, payload)
