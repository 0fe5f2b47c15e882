"""The messages of a swarm, byte by byte.

Each is a frame (magic ``CVSW``, version 1, see :mod:`covector.gradients.framing`) whose payload starts with
``u8 kind, u32 run tag`` (the first four bytes of the header's SHA-256, so that messages of another run are
refused). Clocks and members are lists: ``u16 count`` and the entries. After that, by kind:

1 ``Contribution``  ``u64 origin, u32 iteration, u32 iterations since the previous one, u16 total, i8 exponent,
  u8 leaving``, the admitted (``u64 origin, u16 samples`` each), ``u16`` scalars and one byte for each
2 ``Report``        ``u64 sender, u32 iteration, 8 B ledger digest``, clock (``u64 origin, u32 iteration`` each),
  suspects (``u64`` each)
3 ``Join``          ``u64 origin, u16 samples, 32 B SHA-256 of the header``
4 ``Sync``          ``u32 iteration``, members (``u64 origin, u16 samples`` each), ``u32`` length and the ledger's
  bytes (length 0: none), contributions (``u32`` count; ``u32`` length and a whole Contribution frame each)
5 ``Refusal``       ``u64 receiver``, reason (``u16`` length, UTF-8)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from covector.errors import CorruptionError, ProtocolError
from covector.gradients.framing import Reader, frame, text_bytes, unframe

__all__ = ["MAGIC", "Contribution", "Join", "Message", "Refusal", "Report", "Sync", "decode"]

MAGIC, VERSION = b"CVSW", 1
_HEAD = struct.Struct("<BI")
# far beyond any run, and far enough from 2**32 that counting on from it never overflows a field
_MOST_ITERATIONS = 1 << 31


@dataclass(frozen=True)
class Contribution:
    """The scalars of one peer in one iteration; the only message that changes the ledger.

    Args:
        origin: the peer.
        iteration: when it measured the slopes.
        previous: the iteration of its contribution before this one, -1 for its first: the chain that makes a lost
            message visible.
        total: n, scalars of this iteration in the whole swarm as the sender knows it.
        exponent: binary exponent of the codes' scale.
        codes: one byte a scalar.
        leaving: whether this is its last one.
        admitted: newcomers it lets in, effective in the next iteration: origin -> samples.
    """

    origin: int
    iteration: int
    previous: int
    total: int
    exponent: int
    codes: bytes
    leaving: bool = False
    admitted: dict[int, int] = field(default_factory=dict)

    def to_bytes(self, tag: int) -> bytes:
        since = self.iteration - self.previous
        head = struct.pack("<QIIHbB", self.origin, self.iteration, since, self.total, self.exponent, self.leaving)
        codes = struct.pack("<H", len(self.codes)) + self.codes
        return frame(MAGIC, VERSION, _HEAD.pack(1, tag) + head + _pairs(self.admitted, "<QH") + codes)

    @classmethod
    def read(cls, reader: Reader) -> Contribution:
        origin, iteration, since, total, exponent, leaving = reader.unpack("<QIIHbB")
        admitted = _read_pairs(reader, "<QH")
        codes = bytes(reader.take(*reader.unpack("<H")))
        reader.end()
        _check_iteration(iteration)
        if not 1 <= since <= iteration + 1 or not 1 <= len(codes) <= total or leaving > 1:
            raise CorruptionError(
                f"contribution to iteration {iteration}, {since} after the last, {len(codes)} of {total} scalars"
            )
        return cls(origin, iteration, iteration - since, total, exponent, codes, bool(leaving), admitted)


@dataclass(frozen=True)
class Report:
    """What a peer has: heartbeat, acknowledgement and request for what it lacks, in one."""

    sender: int
    iteration: int
    digest: bytes
    clock: dict[int, int]
    suspects: frozenset[int] = frozenset()

    def to_bytes(self, tag: int) -> bytes:
        parts = [_HEAD.pack(2, tag), struct.pack("<QI8s", self.sender, self.iteration, self.digest)]
        parts.append(_pairs(self.clock, "<QI"))
        parts.append(struct.pack("<H", len(self.suspects)))
        parts += [struct.pack("<Q", suspect) for suspect in sorted(self.suspects)]
        return frame(MAGIC, VERSION, b"".join(parts))

    @classmethod
    def read(cls, reader: Reader) -> Report:
        sender, iteration, digest = reader.unpack("<QI8s")
        clock = _read_pairs(reader, "<QI")
        (count,) = reader.unpack("<H")
        suspects = frozenset(reader.unpack("<Q")[0] for _ in range(count))
        reader.end()
        for number in (iteration, *clock.values()):
            _check_iteration(number)
        return cls(sender, iteration, digest, clock, suspects)


@dataclass(frozen=True)
class Join:
    """A newcomer asks to be admitted with ``samples`` scalars an iteration."""

    origin: int
    samples: int
    header: bytes

    def to_bytes(self, tag: int) -> bytes:
        return frame(MAGIC, VERSION, _HEAD.pack(3, tag) + struct.pack("<QH32s", self.origin, self.samples, self.header))

    @classmethod
    def read(cls, reader: Reader) -> Join:
        origin, samples, header = reader.unpack("<QH32s")
        reader.end()
        if samples < 1:
            raise CorruptionError("a newcomer with no samples")
        return cls(origin, samples, header)


@dataclass(frozen=True)
class Sync:
    """What somebody lacks: the contributions themselves, or the whole ledger where that is smaller.

    Args:
        iteration: where the sender stands.
        members: who takes part in that iteration: origin -> samples.
        ledger: bytes of :class:`~covector.gradients.Ledger`, or empty.
        contributions: frames of :class:`Contribution`, in an order in which they can be applied.
    """

    iteration: int
    members: dict[int, int]
    ledger: bytes = b""
    contributions: tuple[bytes, ...] = ()

    def to_bytes(self, tag: int) -> bytes:
        parts = [_HEAD.pack(4, tag), struct.pack("<I", self.iteration), _pairs(self.members, "<QH")]
        parts += [struct.pack("<I", len(self.ledger)), self.ledger, struct.pack("<I", len(self.contributions))]
        for data in self.contributions:
            parts += [struct.pack("<I", len(data)), data]
        return frame(MAGIC, VERSION, b"".join(parts))

    @classmethod
    def read(cls, reader: Reader) -> Sync:
        (iteration,) = reader.unpack("<I")
        members = _read_pairs(reader, "<QH")
        ledger = bytes(reader.take(*reader.unpack("<I")))
        (count,) = reader.unpack("<I")
        contributions = tuple(bytes(reader.take(*reader.unpack("<I"))) for _ in range(count))
        reader.end()
        _check_iteration(iteration)
        return cls(iteration, members, ledger, contributions)


@dataclass(frozen=True)
class Refusal:
    """Why a newcomer is not let in."""

    receiver: int
    reason: str

    def to_bytes(self, tag: int) -> bytes:
        return frame(MAGIC, VERSION, _HEAD.pack(5, tag) + struct.pack("<Q", self.receiver) + text_bytes(self.reason))

    @classmethod
    def read(cls, reader: Reader) -> Refusal:
        (receiver,) = reader.unpack("<Q")
        reason = reader.text()
        reader.end()
        return cls(receiver, reason)


Message = Contribution | Report | Join | Sync | Refusal
_KINDS: dict[int, type[Message]] = {1: Contribution, 2: Report, 3: Join, 4: Sync, 5: Refusal}


def decode(data: bytes, tag: int) -> Message:
    """The message in ``data``.

    Raises:
        CorruptionError: truncated, changed, of an unknown version or kind, or with impossible values.
        ProtocolError: a message of another run.

    >>> decode(Join(7, 1, bytes(32)).to_bytes(tag=5), tag=5).origin
    7
    """
    reader = Reader(unframe(data, MAGIC, VERSION))
    kind, seen = reader.unpack("<BI")
    if kind not in _KINDS:
        raise CorruptionError(f"message kind {kind} is unknown; expected 1 to {len(_KINDS)}")
    # a newcomer with another header must be told so: its Join and the answer may carry another tag
    if seen != tag and kind not in (3, 5):
        raise ProtocolError(f"the message belongs to run {seen:08x}, this is run {tag:08x}")
    return _KINDS[kind].read(reader)


def _check_iteration(iteration: int) -> None:
    if iteration >= _MOST_ITERATIONS:
        raise CorruptionError(f"iteration {iteration}; expected one below 2**31")


def _pairs(mapping: dict[int, int], layout: str) -> bytes:
    return struct.pack("<H", len(mapping)) + b"".join(struct.pack(layout, *pair) for pair in mapping.items())


def _read_pairs(reader: Reader, layout: str) -> dict[int, int]:
    (count,) = reader.unpack("<H")
    return dict(reader.unpack(layout) for _ in range(count))
