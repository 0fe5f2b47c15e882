"""Which implementation serves a tensor: numba on the CPU, Triton on CUDA, plain torch everywhere else."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["add_field_", "backend", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]


@functools.cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"covector.kernels.{name}")


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def backend(tensor: Tensor) -> str:
    """Name of the implementation that serves ``tensor``: ``"cpu"``, ``"cuda"`` or ``"reference"``.

    Raises:
        ArgumentError: ``COVECTOR_KERNELS`` is set to something else than ``auto`` or ``reference``.

    >>> import torch
    >>> backend(torch.zeros(1)) in ("cpu", "reference")
    True
    """
    choice = os.environ.get("COVECTOR_KERNELS", "auto")
    if choice not in ("auto", "reference"):
        raise ArgumentError("COVECTOR_KERNELS", choice, "'auto' or 'reference'")
    if choice == "reference":
        return "reference"
    if tensor.device.type == "cpu" and _installed("numba"):
        return "cpu"
    if tensor.device.type == "cuda" and _installed("triton"):
        return "cuda"
    return "reference"


def add_field_(
    out: Tensor,
    seeds: Tensor,
    scales: Tensor,
    distribution: str,
    field: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``out += sum_k scales[k] * z(seeds[k])``; see :func:`covector.kernels.reference.add_field_`."""
    _module(backend(out)).add_field_(out, seeds, scales, distribution, field, start, stream, step)


def materialize_seeded_(
    out: Tensor,
    base: Tensor,
    seeds: Tensor,
    units: Tensor,
    distribution: str,
    exponent: int,
    field: int,
    start: int = 0,
) -> None:
    """``out = base + 2**-exponent * sum_k units[k] * z(seeds[k])``, the sum exact in integers."""
    _module(backend(out)).materialize_seeded_(out, base, seeds, units, distribution, exponent, field, start)


def materialize_sketch_(
    out: Tensor,
    base: Tensor,
    table: Tensor,
    seed: int,
    field: int,
    shift: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]``."""
    _module(backend(out)).materialize_sketch_(out, base, table, seed, field, shift, start, stream, step)


def project_sketch_(
    totals: Tensor,
    gradient: Tensor,
    seed: int,
    field: int,
    shift: int,
    start: int = 0,
    stream: int = 0,
    step: int = 0,
) -> None:
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``."""
    _module(backend(gradient)).project_sketch_(totals, gradient, seed, field, shift, start, stream, step)
