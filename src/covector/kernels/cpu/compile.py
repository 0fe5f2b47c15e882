"""Compile a loop into machine code. Only this module and what it imports need numba."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
import torch
from numba import types

from covector.kernels.cpu import loops
from covector.kernels.cpu.signatures import ENTRY, type_names

__all__ = ["assembly", "object_code"]

_LLVM_NAMES = {"float32": "float", "float64": "double", "uint16": "i16", "int16": "i16", "int32": "i32", "int64": "i64"}


def _compiled(name: str, dtypes: tuple[torch.dtype, ...]) -> tuple[llvm.ModuleRef, Any]:
    """The loop with its entry, ``void covector_kernel(address)``, and the target machine it is meant for.

    Nothing in it refers to Python or to numba, so it runs where neither is loaded.
    """
    kinds = type_names(*dtypes)
    signature = types.void(types.int64, *(getattr(types, kind) for kind in kinds))
    options: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    njit: Any = numba.njit
    (result,) = njit(signature, **options)(getattr(loops, name)).overloads.values()
    # numba's convention: where to leave the result and an error, of which a loop has neither, then the arguments
    tags = "".join(f", {_LLVM_NAMES[kind]} zeroinitializer" for kind in kinds)
    entry = f"""
define void @{ENTRY}(i64 %call) {{
  %unused = alloca [2 x i64]
  %status = call i32 @"{result.fndesc.llvm_func_name}"(ptr %unused, ptr %unused, i64 %call{tags})
  ret void
}}
"""
    module = llvm.parse_assembly(result.library.get_llvm_str() + entry)
    module.verify()
    return module, result.library.codegen._tm


def object_code(name: str, *dtypes: torch.dtype) -> bytes:
    """The loop ``name`` for these types of its tags, as an object file in the machine's own format."""
    module, machine = _compiled(name, dtypes)
    return bytes(machine.emit_object(module))


def assembly(name: str, *dtypes: torch.dtype) -> str:
    """What :func:`object_code` holds, to be read."""
    module, machine = _compiled(name, dtypes)
    return str(machine.emit_assembly(module))
