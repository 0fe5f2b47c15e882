"""The cache folder: where fetched and converted data live, and how several processes share it safely.

A folder appears in the cache by one rename, after it is complete; a killed process leaves only a folder
under ``partial/``, which nobody reads. A lock file per name makes the second process wait for the first one's
result.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from covector.errors import DataError

__all__ = ["MANIFEST", "cache_folder", "lock", "publish", "read_manifest", "scratch"]

MANIFEST = "covector.json"
_STALE_SECONDS = 86_400


def cache_folder() -> Path:
    """The folder that holds everything fetched: ``$COVECTOR_CACHE``, or the platform's cache folder.

    Returns:
        The folder's absolute path; it is not created here.

    >>> cache_folder().is_absolute()
    True
    """
    chosen = os.environ.get("COVECTOR_CACHE")
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("covector")
    return folder.absolute()


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock ``name``, shared by all processes that use this cache; the rest wait for it."""
    folder = _writable("locks")
    with FileLock(folder / f"{name}.lock"):
        yield


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new empty folder on the cache's file system (a rename out of it is atomic), removed at the end."""
    parent = _writable("partial")
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _writable(name: str) -> Path:
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the cache cannot be written ({error}); set COVECTOR_CACHE to a folder of yours"
        ) from error
    return folder


def _sweep(parent: Path) -> None:
    """Remove what killed processes left behind: nothing that still runs is a day old."""
    for folder in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may sweep at the same time
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def publish(finished: Path, target: Path) -> None:
    """Make ``finished`` (a file or folder from :func:`scratch`) appear as ``target`` in one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():  # a folder cannot be renamed onto a full one: the stale one is moved aside first
        with scratch() as aside:
            target.rename(aside / target.name)
            finished.rename(target)
        return
    finished.replace(target)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The ``covector.json`` of a converted folder; empty where there is none or it cannot be read."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
