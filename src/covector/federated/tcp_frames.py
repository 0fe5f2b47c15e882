"""What goes over a swarm's TCP connections: frames read without trust, and the handshake with the address list.

A connection carries frames of :mod:`covector.gradients.framing`, one after the other; the length in a frame's
head delimits it. A head with another magic or a length above the run's bound ends the connection before
anything is read or allocated for it; the checksum is verified where the frame is decoded.

Handshake (magic ``CVTH``, version 1), first from who dials, then from who answers::

    u64 origin, u16 port it listens on, u16 count and for each known peer: u64 origin, u16 port,
    host (u16 length, UTF-8)

The host of the sender is the address its connection comes from.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

from covector.errors import CorruptionError
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_messages import MAGIC as SWARM
from covector.gradients.framing import OVERHEAD, Reader, frame, text_bytes, unframe

__all__ = ["Hello", "largest_frame", "read_frame"]

HELLO, VERSION = b"CVTH", 1
_HEAD = struct.Struct("<4sHI")
_MOST_ADDRESSES = 1024


@dataclass(frozen=True)
class Hello:
    """Who speaks, where it listens and whom it knows: origin -> (host, port).

    >>> Hello.from_bytes(Hello(7, 4000, {8: ("10.0.0.2", 4001)}).to_bytes()).known
    {8: ('10.0.0.2', 4001)}
    """

    origin: int
    port: int
    known: dict[int, tuple[str, int]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The frame; at most 1024 addresses go into it."""
        known = list(self.known.items())[:_MOST_ADDRESSES]
        parts = [struct.pack("<QHH", self.origin, self.port, len(known))]
        parts += [struct.pack("<QH", origin, port) + text_bytes(host) for origin, (host, port) in known]
        return frame(HELLO, VERSION, b"".join(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Hello:
        """The handshake in ``data``.

        Raises:
            CorruptionError: truncated, changed, or more addresses than are ever sent.
        """
        reader = Reader(unframe(data, HELLO, VERSION))
        origin, port, count = reader.unpack("<QHH")
        if count > _MOST_ADDRESSES:
            raise CorruptionError(f"{count} addresses; expected at most {_MOST_ADDRESSES}")
        known = {}
        for _ in range(count):
            other, at = reader.unpack("<QH")
            known[other] = (reader.text(), at)
        reader.end()
        return cls(origin, port, known)


def largest_frame(header: SwarmHeader) -> int:
    """Bytes of the largest message a run can need: a ledger, everybody's clock and a log of the same size.

    >>> from covector import SketchPool
    >>> largest_frame(SwarmHeader("0" * 64, SketchPool(1, 4096), lr=0.1)) < 2**18
    True
    """
    ledger = 8 * header.pool.size + 64
    peers = 64 * header.most_peers
    waiting = 2 * header.most_peers * 16 + 4 * (header.most_samples + 64)
    return 2 * (ledger + peers) + waiting + (1 << 12)


async def read_frame(stream: asyncio.StreamReader, most: int) -> bytes:
    """The next frame of a connection, not decoded yet.

    Args:
        stream: where from.
        most: bytes of the largest frame to accept.

    Raises:
        CorruptionError: what comes is no frame of a swarm, or is too large.
        asyncio.IncompleteReadError: the connection ended.
    """
    head = await stream.readexactly(_HEAD.size)
    magic, _, length = _HEAD.unpack(head)
    if magic not in (SWARM, HELLO):
        raise CorruptionError(f"a connection that speaks {magic!r}, not the protocol of a swarm")
    if length + OVERHEAD > most:
        raise CorruptionError(f"a frame of {length + OVERHEAD} bytes; this run needs at most {most}")
    return head + await stream.readexactly(length + OVERHEAD - _HEAD.size)
