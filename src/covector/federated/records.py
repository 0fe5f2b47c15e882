"""Records: what a server writes to its journal, enough to bring it back to the same bits.

::

    1 HEADER   the run header's frame; always the first
    2 NAME     a client's name, UTF-8; its number is the count of names before it
    3 OPEN     u32 round, u16 clients, count x u16 numbers: a round opens
    4 REPLY    u16 client, a GRADS message: an accepted reply, written before it is acknowledged
    5 COMMIT   a COMMIT message: the round is closed
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from covector.errors import CorruptionError
from covector.federated.header import RunHeader
from covector.gradients.framing import Reader
from covector.gradients.journal import Journal

__all__ = [
    "COMMIT",
    "HEADER",
    "NAME",
    "OPEN",
    "REPLY",
    "header_of",
    "open_bytes",
    "read_open",
    "read_reply",
    "reply_bytes",
]

HEADER, NAME, OPEN, REPLY, COMMIT = 1, 2, 3, 4, 5


def header_of(journal: Journal) -> RunHeader:
    """The run a journal belongs to.

    Raises:
        CorruptionError: it does not begin with a run header.
    """
    for kind, payload in journal.records():
        if kind == HEADER:
            return RunHeader.from_bytes(payload)
        break
    raise CorruptionError("the journal holds no run; start the server with a header")


def open_bytes(round: int, clients: Sequence[int]) -> bytes:
    """An OPEN record.

    >>> read_open(open_bytes(7, (1, 3)))
    (7, (1, 3))
    """
    return struct.pack(f"<IH{len(clients)}H", round, len(clients), *clients)


def read_open(payload: bytes) -> tuple[int, tuple[int, ...]]:
    """``(round, numbers of the clients)``."""
    reader = Reader(payload)
    round, count = reader.unpack("<IH")
    clients = reader.unpack(f"<{count}H")
    reader.end()
    return round, clients


def reply_bytes(client: int, message: bytes) -> bytes:
    """A REPLY record."""
    return struct.pack("<H", client) + message


def read_reply(payload: bytes) -> tuple[int, bytes]:
    """``(number of the client, its message)``."""
    reader = Reader(payload)
    (client,) = reader.unpack("<H")
    return client, payload[2:]
