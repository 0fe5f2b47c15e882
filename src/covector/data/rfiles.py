"""Read the data files of R packages: ``.rda`` files and lazy-load databases (``.rdx`` and ``.rdb``)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
import zlib
from pathlib import Path
from typing import Any

from covector.errors import DataError, require_extra

__all__ = ["read_lazy", "read_rda"]


def read_rda(path: Path, variable: str) -> Any:
    """The variable of an ``.rda`` file: a data frame as pandas, a vector as numpy."""
    require_extra("rdata", "data")
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about encodings and classes of R that change nothing in the values
        return rdata.read_rda(path)[variable]


def read_lazy(index: Path, variable: str) -> Any:
    """The variable of a lazy-load database.

    Args:
        index: the ``.rdx`` file: a compressed list that gives each variable's offset and length in the
            ``.rdb`` file beside it.
        variable: its name.
    """
    places = _parse(gzip.decompress(index.read_bytes()))["variables"]
    if variable not in places:
        raise DataError(f"{index}: has no variable {variable!r}")
    start, length = (int(number) for number in places[variable])
    with index.with_suffix(".rdb").open("rb") as handle:
        handle.seek(start)
        return _parse(_decompress(handle.read(length)))


def _decompress(record: bytes) -> bytes:
    """A record: its length (4 bytes, not needed here), then ``2`` bzip2, ``Z`` xz, or plain zlib."""
    kind = record[4:5]
    if kind == b"2":
        return bz2.decompress(record[5:])
    if kind == b"Z":
        return lzma.decompress(record[5:], lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])
    return zlib.decompress(record[4:])


def _parse(serialized: bytes) -> Any:
    require_extra("rdata", "data")
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rdata.conversion.convert(rdata.parser.parse_data(serialized))
