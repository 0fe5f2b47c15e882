"""The loops as functions: machine code from the disk cache or the compiler, loaded by LLVM and called by address.

A process that finds all it needs in the cache never imports numba, which saves time and memory.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
import torch

from covector.kernels.cpu import cache
from covector.kernels.cpu.signatures import ENTRY, layout

__all__ = ["Loop", "kernel", "supports"]

Loop = Callable[..., None]

_engines: list[llvm.ExecutionEngine] = []
_lock = threading.Lock()


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """Whether the kernels handle this storage; half precision needs a processor that converts it."""
    if dtype == torch.float16:
        triple, _, features = cache.processor()
        return not triple.startswith(("x86", "i686")) or "+f16c" in features.split(",")
    return dtype in (torch.float32, torch.float64, torch.bfloat16)


@functools.cache
def kernel(name: str, *dtypes: torch.dtype) -> Loop:
    """The loop ``name`` compiled for these types of its tags; the last one is the storage's."""
    file = "-".join([name, *(str(dtype).removeprefix("torch.") for dtype in dtypes)])
    code = cache.read(file)
    if code is None:
        code = importlib.import_module("covector.kernels.cpu.compile").object_code(name, *dtypes)
        cache.write(file, code)
    pack = layout(name, *dtypes).pack
    # a call through ctypes holds no lock of the interpreter
    function = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_load(code))

    def loop(*numbers: float) -> None:
        function(pack(*numbers))

    return loop


def _load(code: bytes) -> int:
    """Address of the entry in object code. An engine each: names inside of two objects are the same."""
    with _lock:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)
        return int(engine.get_function_address(ENTRY))


def _check_compiler() -> None:
    """Fail now, not at the first operation, where numba is needed and does not load."""
    folder = cache.cache_folder()
    # on Windows compiled code may call a helper of numba's that checks the stack
    if os.name == "nt" or folder is None or not any(folder.iterdir()):
        importlib.import_module("covector.kernels.cpu.compile")


_check_compiler()
