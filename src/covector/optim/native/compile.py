"""A rule as a loop over elements: written out for its number of states, compiled, and kept on disk.

The loop differs between rules only in how many arrays it reads and writes, which numba wants spelled out; so its
few lines are filled into a template. Of a rule nothing is parsed: its function is compiled as it stands, with the
names of :mod:`covector.optim.operations` bound to scalar code.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numba
import torch
from numba import types
from numba.core import config as numba_config

from covector.kernels.cpu.cache import cache_folder
from covector.optim.native.scalars import SCALARS, load, pointer, store
from covector.optim.rule import Rule

__all__ = ["TAGS", "compiled"]

_config: Any = numba_config
_carray: Any = vars(numba)["carray"]  # exported without saying so
TAGS: dict[torch.dtype, types.Type] = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.uint16,
}

# table [k, 4 + states]: count, parameter, gradient, out, states; factors [k, 4]: of the gradient, L2, keep, step
_TEMPLATE = """
def loop(table, factors, numbers, begin, end, stored, kept):
    {coefficients}
    for row in range(begin, end):
        count = table[row, 0]
        parameter = carray(pointer(table[row, 1], stored), (count,))
        gradient = carray(pointer(table[row, 2], stored), (count,))
        {out}
        {arrays}
        sign, decay = kind(factors[row, 0]), kind(factors[row, 1])
        keep, step = kind(factors[row, 2]), kind(factors[row, 3])
        for i in range(count):
            x = load(parameter[i])
            {call} = rule(sign * load(gradient[i]) + decay * x{arguments})
            {target}[i] = store(keep * x - step * direction, stored)
            {writes}
"""


def _source(states: int, coefficients: int, in_place: bool) -> str:
    names = [f"s{j}" for j in range(states)]
    numbers = [f"c{j}" for j in range(coefficients)]
    # an array read under one name and written under another would look like an overlap, and not be vectorized
    return _TEMPLATE.format(
        out="pass" if in_place else "out = carray(pointer(table[row, 3], stored), (count,))",
        target="parameter" if in_place else "out",
        coefficients="; ".join(f"{c} = kind(numbers[{j}])" for j, c in enumerate(numbers)) or "pass",
        arrays="; ".join(f"{s} = carray(pointer(table[row, {4 + j}], kept), (count,))" for j, s in enumerate(names))
        or "pass",
        call=", ".join(["direction", *[f"n{j}" for j in range(states)]]) if states else "(direction,)",
        arguments="".join(f", {s}[i]" for s in names) + "".join(f", {c}" for c in numbers),
        writes="; ".join(f"{s}[i] = n{j}" for j, s in enumerate(names)) or "pass",
    )


def _function(source: str, filename: str, namespace: dict[str, Any]) -> FunctionType:
    """The one function a source text defines, with these globals."""
    module = compile(source, filename, "exec")
    code = next(constant for constant in module.co_consts if isinstance(constant, CodeType))
    return FunctionType(code, namespace, code.co_name)


def _bound(rule: Rule) -> Any:
    """The rule's function with scalar meanings of its names, as a numba function."""
    function = inspect.unwrap(rule.update)
    namespace = {**function.__globals__, **SCALARS}
    scalar = FunctionType(function.__code__, namespace, function.__name__, None, function.__closure__)
    return numba.njit(scalar, inline="always", error_model="numpy")


@functools.cache
def compiled(rule: Rule, coefficients: int, dtype: torch.dtype, in_place: bool) -> Callable[..., None]:
    """The loop of a rule for parameters of one dtype, stepping in place or writing elsewhere, compiled or loaded."""
    stored = TAGS[dtype]
    kind = types.float64 if dtype == torch.float64 else types.float32
    # numba imports the module named here when it loads the loop from disk
    namespace = {
        "__name__": __name__, "carray": _carray, "pointer": pointer, "load": load, "store": store, "kind": kind,
        "rule": _bound(rule),
    }  # fmt: skip
    update: Any = inspect.unwrap(rule.update)
    loop = _function(_source(len(rule.states), coefficients, in_place), update.__code__.co_filename, namespace)
    signature = types.void(
        types.int64[:, ::1], types.float64[:, ::1], types.float64[::1], types.int64, types.int64, stored, kind
    )
    folder = _folder(update, dtype, in_place)
    # what may be contracted into one rounding is; nothing else is reordered or assumed
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "cache": folder is not None}
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder) if folder is not None else before
    try:
        result: Callable[..., None] = numba.njit(signature, **options)(loop)
        return result
    finally:
        _config.CACHE_DIR = before


def _folder(update: Any, dtype: torch.dtype, in_place: bool) -> Path | None:
    root = cache_folder()
    try:
        text = inspect.getsource(update)
    except OSError:  # a function typed into a shell has no file to be cached for
        return None
    # numba looks at the file a function stands in
    if root is None or update.__closure__ or not Path(update.__code__.co_filename).exists():
        return None
    here = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
    digest = hashlib.sha256((text + here).encode()).hexdigest()[:12]
    kind = "step" if in_place else "update"
    return root / f"{update.__name__}-{digest}-{str(dtype).removeprefix('torch.')}-{kind}"
