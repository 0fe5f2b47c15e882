"""Journal: an append-only file of records, on disk before anybody relies on them.

::

    head     4 magic ``CVJL``, u16 version 1, u16 zero
    record   u32 length n, u8 kind (1 to 255), n bytes, u32 CRC-32 of all before it in the record

A crash while a record is written leaves a torn tail. Opening cuts it off and says how many bytes it had. A
damaged record with whole records after it is no torn tail: opening refuses, and nothing is cut.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from covector.errors import ArgumentError, CorruptionError, ProtocolError

__all__ = ["Journal"]

_FILE_HEAD = struct.pack("<4sHH", b"CVJL", 1, 0)
_RECORD_HEAD = struct.Struct("<IB")
_CRC = struct.Struct("<I")
_OVERHEAD = _RECORD_HEAD.size + _CRC.size


class Journal:
    """An append-only file of typed records.

    Args:
        path: the file; created if missing.
        fsync: ``"always"`` waits for the disk at every record, ``"never"`` leaves it to the system (a crash of
            the process loses nothing then, a power cut may lose the last records).

    Attributes:
        dropped: bytes of a torn tail that opening cut off.

    Raises:
        CorruptionError: not a journal, another version, or damage that is not a torn tail.
        ProtocolError: another process has it open.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Journal(Path(folder.name) / "run.journal") as journal:
    ...     journal.append(1, b"first")
    ...     list(journal.records())
    [(1, b'first')]
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], fsync: Literal["always", "never"] = "always") -> None:
        if fsync not in ("always", "never"):
            raise ArgumentError("fsync", fsync, "'always' or 'never'")
        self.path = Path(path)
        self.fsync = fsync
        self.dropped = 0
        fresh = not self.path.exists()
        self._file: BinaryIO = open(self.path, "r+b" if not fresh else "x+b")  # noqa: SIM115 (closed by close)
        try:
            self._lock()
            self._recover()
        except BaseException:
            self._file.close()
            raise
        if fresh and fsync == "always":
            _sync_folder(self.path.parent)

    def _lock(self) -> None:
        if importlib.util.find_spec("fcntl") is None:
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ProtocolError(f"{self.path} is open in another process; one server writes a journal") from error

    def _recover(self) -> None:
        data = self._file.read()
        if len(data) < len(_FILE_HEAD):
            if not _FILE_HEAD.startswith(data):
                raise CorruptionError(f"{self.path} is not a journal: it starts with {data!r}")
            self.dropped = len(data)
            self._end = len(_FILE_HEAD)
            self._rewrite_head()
            return
        if data[: len(_FILE_HEAD)] != _FILE_HEAD:
            raise CorruptionError(
                f"{self.path} starts with {data[:8].hex()}, a journal of version 1 with {_FILE_HEAD.hex()}"
            )
        end = len(_FILE_HEAD)
        while (record := _record_at(data, end)) is not None:
            end += _OVERHEAD + len(record[1])
        self._refuse_damage(data, end)
        self.dropped = len(data) - end
        self._end = end
        if self.dropped:
            self._file.truncate(end)
            self._sync()

    def _refuse_damage(self, data: bytes, end: int) -> None:
        for start in range(end + 1, len(data) - _OVERHEAD + 1):
            if _record_at(data, start) is not None:
                raise CorruptionError(
                    f"{self.path} is damaged at byte {end}, but whole records follow at byte {start}: this is not the "
                    "torn tail of a crash; restore the file from a copy"
                )

    def _rewrite_head(self) -> None:
        self._file.seek(0)
        self._file.truncate(0)
        self._file.write(_FILE_HEAD)
        self._sync()

    def _sync(self) -> None:
        self._file.flush()
        if self.fsync == "always":
            os.fsync(self._file.fileno())

    def append(self, kind: int, payload: bytes) -> None:
        """Write one record; it is on disk when this returns (with ``fsync="always"``).

        Args:
            kind: 1 to 255.
            payload: any bytes.

        Raises:
            OSError: the disk is full or gone; what was written of the record is taken back.
        """
        if not 1 <= kind <= 255:
            raise ArgumentError("kind", kind, "a whole number from 1 to 255")
        body = _RECORD_HEAD.pack(len(payload), kind) + payload
        try:
            self._file.seek(self._end)
            self._file.write(body + _CRC.pack(zlib.crc32(body)))
            self._sync()
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(body) + _CRC.size

    def records(self) -> Iterator[tuple[int, bytes]]:
        """All records from the first, as ``(kind, payload)``."""
        self._file.seek(len(_FILE_HEAD))
        data = _FILE_HEAD + self._file.read(self._end - len(_FILE_HEAD))
        at = len(_FILE_HEAD)
        while (record := _record_at(data, at)) is not None:
            yield record
            at += _OVERHEAD + len(record[1])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record_at(data: bytes, at: int) -> tuple[int, bytes] | None:
    """The whole, undamaged record at ``at``, or ``None``."""
    if at + _OVERHEAD > len(data):
        return None
    length, kind = _RECORD_HEAD.unpack_from(data, at)
    end = at + _RECORD_HEAD.size + length
    if kind == 0 or end + _CRC.size > len(data):
        return None
    if zlib.crc32(memoryview(data)[at:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    return kind, data[at + _RECORD_HEAD.size : end]


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
