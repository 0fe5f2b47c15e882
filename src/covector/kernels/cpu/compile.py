"""Compile a loop for one storage type, or load it from the disk cache.

One signature a dispatcher and one folder a signature: processes that compile the same kernel at the same time
can only replace a cached file by an equal one. The folder's name hashes the sources, the versions and the
processor, because numba itself only watches the file a kernel stands in, not the helpers it calls.

The cache lies in ``NUMBA_CACHE_DIR`` where that is set, in the user's cache folder otherwise, never beside
the sources: an install may be read-only. Where no folder can be written, each process compiles for itself. A
shared temporary folder is never used, as cached machine code from a stranger must not run.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
import torch
from llvmlite import binding
from numba import types
from numba.core import config as numba_config
from numba.core.typing.templates import Signature

from covector.kernels.cpu import loops

_config: Any = numba_config

__all__ = ["TAGS", "cache_folder", "kernel", "supports"]

TAGS: dict[torch.dtype, types.Type] = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.uint16,
    torch.float16: types.int16,
}
_INTEGER, _DOUBLE = types.int64, types.float64


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether the kernels handle this storage; half precision needs a processor that converts it."""
    if dtype == torch.float16 and "x86" in binding.get_process_triple():
        return bool(binding.get_host_cpu_features().get("f16c", False))
    return dtype in TAGS


def _signature(name: str, tag: types.Type, total: types.Type) -> Signature:
    work = types.float64 if tag == types.float64 else types.float32
    arguments = {
        "add_one_seed": [*[_INTEGER] * 4, _DOUBLE, *[_INTEGER] * 3, tag],
        "sum_rademacher": [*[_INTEGER] * 10, _DOUBLE, total, tag],
        "sum_binomial": [*[_INTEGER] * 10, _DOUBLE, total, tag],
        "sum_normal": [*[_INTEGER] * 10, _DOUBLE, total, tag],
        "materialize_sketch": [*[_INTEGER] * 11, work, tag],
        "project_sketch": [*[_INTEGER] * 12, tag],
    }
    return types.void(*arguments[name])


@functools.cache
def kernel(name: str, dtype: torch.dtype, total: types.Type = types.none) -> Callable[..., None]:
    """The loop ``name`` compiled for storage ``dtype`` and, where it sums, for totals of type ``total``."""
    signature = _signature(name, TAGS[dtype], total)
    folder = cache_folder()
    if folder is None:
        return _jit(name, signature, cache=False)
    # numba reads the folder when the dispatcher is made and keeps it, so the setting is put back at once
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder / f"{name}-{dtype}-{total}".replace("torch.", ""))
    try:
        return _jit(name, signature, cache=True)
    finally:
        _config.CACHE_DIR = before


def _jit(name: str, signature: Signature, cache: bool) -> Callable[..., None]:
    compiled: Callable[..., None] = numba.njit(signature, nogil=True, cache=cache, error_model="numpy")(
        getattr(loops, name)
    )
    return compiled


@functools.cache
def cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where nothing can be written."""
    root = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("covector", appauthor=False)
    folder = Path(root) / "kernels" / _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _fingerprint() -> str:
    versions = (numba.__version__, llvmlite.__version__, sys.version)
    processor = (binding.get_process_triple(), binding.get_host_cpu_name(), _features())
    digest = hashlib.sha256(repr((versions, processor)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _features() -> str:
    return str(binding.get_host_cpu_features().flatten())
