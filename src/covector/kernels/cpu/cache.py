"""Compiled loops on disk, one file each: replaced whole, read only if its digest fits.

The folder's name hashes the sources, the versions and the processor. It lies in ``NUMBA_CACHE_DIR`` where that is
set, in the user's cache folder otherwise, never beside the sources: an install may be read-only. A shared temporary
folder is never used, as machine code from a stranger must not run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

__all__ = ["cache_folder", "processor", "read", "write"]

_DIGEST = 32


def processor() -> tuple[str, str, str]:
    """What code is compiled for: the triple, the processor and its features, as numba chooses them."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    return llvm.get_process_triple(), os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name(), features


def _fingerprint() -> str:
    versions = [importlib.metadata.version(name) for name in ("llvmlite", "numba", "numpy")]
    digest = hashlib.sha256(repr((versions, sys.version, processor())).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path | None:
    """Where compiled loops are kept, or None where nothing can be written."""
    root = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("covector", appauthor=False)
    folder = Path(root) / "kernels" / _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def read(name: str) -> bytes | None:
    """The object code kept under ``name``; None where there is none or the file was damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        content = (folder / name).read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def write(name: str, code: bytes) -> None:
    """Keep object code for the next process; where the disk is full or locked it is not kept."""
    folder = cache_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, folder / name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
