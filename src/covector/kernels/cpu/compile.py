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
from numba import types
from numba.core import config as numba_config
from numba.core.registry import cpu_target
from numba.core.typing.templates import Signature

from covector.kernels.cpu import loops

__all__ = ["cache_folder", "kernel", "processor", "supports"]

_config: Any = numba_config

_TAGS: dict[torch.dtype, types.Type] = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.uint16,
    torch.float16: types.int16,
    torch.int32: types.int32,
    torch.int64: types.int64,
}


def processor() -> tuple[str, str, str]:
    """What code is compiled for: the triple, the processor and its features."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, name, features


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether the kernels handle this storage; half precision needs a processor that converts it."""
    if dtype == torch.float16:
        triple, _, features = processor()
        return not triple.startswith(("x86", "i686")) or "+f16c" in features.split(",")
    return dtype in (torch.float32, torch.float64, torch.bfloat16)


def _signature(name: str, kinds: tuple[types.Type, ...]) -> Signature:
    integer, double = types.int64, types.float64
    leading: dict[str, list[types.Type]] = {
        "add_one_seed": [*[integer] * 4, double, *[integer] * 3],
        "sum_rademacher": [*[integer] * 10, double],
        "sum_values": [*[integer] * 10, double],
        "materialize_sketch": [integer] * 11,
        "project_sketch": [integer] * 12,
    }
    return types.void(*leading[name], *kinds)


@functools.cache
def kernel(name: str, *dtypes: torch.dtype) -> Callable[..., None]:
    """The loop ``name`` compiled for these types of its last arguments; the very last one is the storage's."""
    signature = _signature(name, tuple(_TAGS[dtype] for dtype in dtypes))
    folder = cache_folder()
    if folder is None:
        return _jit(name, signature, cache=False)
    # numba reads the setting when the dispatcher is made and keeps the folder, so it is put back at once
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder / "-".join([name, *(str(dtype).removeprefix("torch.") for dtype in dtypes)]))
    try:
        return _jit(name, signature, cache=True)
    finally:
        _config.CACHE_DIR = before


def _jit(name: str, signature: Signature, cache: bool) -> Callable[..., None]:
    compile_: Any = numba.njit(signature, nogil=True, cache=cache, error_model="numpy")
    compiled: Callable[..., None] = compile_(getattr(loops, name))
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
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version, processor())).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
