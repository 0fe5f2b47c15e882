"""Take wanted files out of a wheel, a tar archive or a Debian package, and nothing outside the target folder.

Only regular files are written. A member whose path is absolute or climbs out of the folder makes the whole
archive refused before anything is written, as does a wanted member that is a link or a device.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from covector.errors import DataError

__all__ = ["unpack"]

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60  # bytes: name 16, date 12, owner 6, group 6, mode 8, size 10, end mark 2


def unpack(archive: Path, into: Path, wanted: tuple[str, ...] = ("*",)) -> None:
    """Extract the members of ``archive`` that match one of the ``wanted`` patterns.

    Args:
        archive: a ``.whl`` / ``.zip``, ``.tar.*`` / ``.tgz`` or ``.deb`` file.
        into: folder to write to, created where needed.
        wanted: shell patterns of member paths; ``*`` also matches ``/``.

    Raises:
        DataError: the archive cannot be read, has a member that would land outside ``into``, or has no member
            that matches one of the patterns.
    """
    try:
        if archive.suffix in (".whl", ".zip"):
            found = _unpack_zip(archive, into, wanted)
        else:
            found = _unpack_tar(archive, into, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); delete it to fetch it again") from error
    missing = [pattern for pattern in wanted if not any(fnmatchcase(name, pattern) for name in found)]
    if missing:
        raise DataError(f"{archive}: has no member that matches {missing[0]!r}")


def _unpack_zip(archive: Path, into: Path, wanted: tuple[str, ...]) -> list[str]:
    with zipfile.ZipFile(archive) as handle:
        members = [info for info in handle.infolist() if not info.is_dir()]
        names = [_inside(archive, info.filename) for info in members]
        chosen = [(i, n) for i, n in zip(members, names, strict=True) if _matches(n, wanted)]
        for info, name in chosen:
            with handle.open(info) as source:
                _write(source, into / name)
    return [name for _, name in chosen]


def _unpack_tar(archive: Path, into: Path, wanted: tuple[str, ...]) -> list[str]:
    with _open_tar(archive) as handle:
        members = [info for info in handle.getmembers() if not info.isdir()]
        names = [_inside(archive, info.name) for info in members]
        chosen = [(i, n) for i, n in zip(members, names, strict=True) if _matches(n, wanted)]
        for info, name in chosen:
            if not info.isreg():
                raise DataError(f"{archive}: member {name!r} is a link or a device; only files are unpacked")
        for info, name in chosen:
            source = handle.extractfile(info)
            assert source is not None  # a regular file always has content
            _write(source, into / name)
    return [name for _, name in chosen]


def _open_tar(archive: Path) -> tarfile.TarFile:
    if archive.suffix != ".deb":
        return tarfile.open(archive)
    for name, content in _ar_members(archive):
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=io.BytesIO(content))
    raise DataError(f"{archive}: no data.tar member; not a Debian package")


def _ar_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The (name, content) pairs of an ``ar`` archive, the outer container of a Debian package."""
    with archive.open("rb") as handle:
        if handle.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise DataError(f"{archive}: no ar signature; not a Debian package")
        while len(header := handle.read(_AR_HEADER)) == _AR_HEADER:
            size = int(header[48:58])
            yield header[:16].decode("ascii").strip().rstrip("/"), handle.read(size)
            handle.seek(size % 2, io.SEEK_CUR)  # members start at even offsets


def _inside(archive: Path, member: str) -> str:
    """The member's path relative to the target folder; refuses one that would leave it."""
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"{archive}: member {member!r} would be written outside the folder; refused")
    return str(path)


def _matches(name: str, wanted: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
