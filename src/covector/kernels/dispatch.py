"""Which implementation serves a tensor: numba on the CPU, Triton on CUDA, plain torch everywhere else."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from covector.errors import ArgumentError
from covector.kernels import reference
from covector.kernels.checks import check_combination, check_flat, check_law, check_same, check_table, check_written
from covector.kernels.operands import Backend, Place, Terms

__all__ = ["add_field_", "backend", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]


_LOW = 0xFFFFFFFF
# numba then runs Python in place of machine code, which the vector steps do not have; their words are little-endian
_JIT_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") or sys.byteorder != "little"


@functools.cache
def _load(name: str) -> Backend:
    """The implementation called ``name``; the fast ones are imported when a tensor first asks for them."""
    if name == "cpu":
        from covector.kernels import cpu

        return cpu
    if name == "cuda":
        from covector.kernels import cuda

        return cuda
    return reference


@functools.cache
def _usable(name: str, package: str) -> bool:
    """Whether the kernels ``name`` load here; they may fail to where ``package`` does not fit its neighbors."""
    if importlib.util.find_spec(package) is None:
        return False
    try:
        _load(name)
    except ImportError as error:
        warnings.warn(f"no {name} kernels ({error}); plain torch gives the same bits, slowly", stacklevel=2)
        return False
    return True


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
    if tensor.device.type == "cpu" and not _JIT_DISABLED and _usable("cpu", "numba"):
        return "cpu"
    if tensor.device.type == "cuda" and _usable("cuda", "triton"):
        return "cuda"
    return "reference"


def _serving(tensor: Tensor, written: Tensor) -> Backend:
    """Who serves ``tensor``; autograd is told that ``written`` will be overwritten."""
    increment_version(written)
    chosen = _load(backend(tensor))
    return chosen if chosen.supports(tensor.dtype) else reference


def _place(field: int, start: int, stream: int = 0, step: int = 0) -> Place:
    return Place(field & _LOW, start, stream & _LOW, step & _LOW)


def _signed(seed: int) -> int:
    """The 64 bits of a seed as a signed integer."""
    return ((seed & 0xFFFFFFFFFFFFFFFF) ^ (1 << 63)) - (1 << 63)


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
    """``out += sum_k scales[k] * z(seeds[k])``, summed over k in order, then added once.

    Args:
        out: flat contiguous floating tensor ``[n]``: elements ``start .. start + n - 1`` of the named tensor.
        seeds: int64 ``[K]``, on any device.
        scales: float64 ``[K]``, rounded to the working dtype (float64 for float64, float32 else) first.
        distribution: ``"rademacher"``, ``"binomial"`` or ``"normal"``.
        field: 32-bit word of the tensor's name.
        start: index of the first element.
        stream: purpose, the third word of the counter.
        step: the fourth word.

    Raises:
        ArgumentError: unknown distribution or negative start.
        MismatchError: ``out`` is not flat and contiguous, or seeds and scales differ in length.
        UnsupportedError: ``out`` is sparse, not floating, or recorded by autograd.

    >>> import torch
    >>> out = torch.zeros(4)
    >>> add_field_(out, torch.tensor([7]), torch.tensor([0.5], dtype=torch.float64), "rademacher", field=1)
    >>> out.abs().tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    check_written("out", out)
    check_combination("scales", scales, seeds)
    check_law(distribution, start)
    terms = Terms(seeds, scales, distribution)
    _serving(out, out).add_field_(out, terms, _place(field, start, stream, step))


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
    """``out = base + 2**-exponent * sum_k units[k] * z(seeds[k])``, the sum exact in integers.

    One pass over memory whatever K: the sums of a few thousand elements stay in the cache while all seeds go by.

    Args:
        out: flat contiguous ``[n]``; may be ``base`` itself, but not overlap it otherwise.
        base: flat contiguous ``[n]``, same dtype and device.
        seeds: int64 ``[K]``, on any device.
        units: int64 ``[K]``. The binomial law counts in quarters, which the caller includes in ``exponent``.
        distribution: ``"rademacher"`` or ``"binomial"``, the laws of integers.
        exponent: the unit is ``2**-exponent``.
        field: 32-bit word of the tensor's name.
        start: index of the first element.

    Raises:
        ArgumentError: a law without exact sums, or negative start.
        MismatchError: ``out`` and ``base`` are not alike, flat and contiguous, or seeds and units differ in length.
        UnsupportedError: ``out`` is sparse, not floating, or recorded by autograd.

    >>> import torch
    >>> base = torch.zeros(4)
    >>> materialize_seeded_(base, base, torch.tensor([7]), torch.tensor([3]), "rademacher", exponent=1, field=1)
    >>> base.abs().tolist()
    [1.5, 1.5, 1.5, 1.5]
    """
    check_written("out", out)
    check_same(out, base)
    check_combination("units", units, seeds)
    check_law(distribution, start, exact=True)
    terms = Terms(seeds, units, distribution)
    _serving(out, out).materialize_seeded_(out, base, terms, exponent, _place(field, start))


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
    """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]`` with Rademacher signs ``D``.

    Args:
        out: flat contiguous ``[n]``; may be ``base`` itself, but not overlap it otherwise.
        base: flat contiguous ``[n]``, same dtype and device.
        table: ``[N]`` on the same device in the working dtype (float64 for float64 parameters, float32 else).
        seed: 64-bit seed of the signs.
        field: 32-bit word of the tensor's name.
        shift: where in the table element 0 of the tensor begins.
        start: index of the first element.
        stream: purpose, the third word of the counter.
        step: the fourth word.

    Raises:
        ArgumentError: empty table or negative start.
        MismatchError: tensors that are not alike, flat and contiguous, or a table of another dtype or device.
        UnsupportedError: ``out`` is sparse, not floating, or recorded by autograd.

    >>> import torch
    >>> out = torch.zeros(4)
    >>> materialize_sketch_(out, out, torch.tensor([1.0, 2.0]), seed=7, field=1, shift=0)
    >>> out.abs().tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    check_written("out", out)
    check_same(out, base)
    check_table("table", table, reference.work_dtype(out.dtype), out.device)
    check_law("rademacher", start)
    place, shift = _place(field, start, stream, step), shift % table.numel()
    _serving(out, out).materialize_sketch_(out, base, table, _signed(seed), shift, place)


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
    """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each total in the order of ``i``.

    Args:
        totals: float64 ``[N]``, added to.
        gradient: flat contiguous floating ``[n]`` on the same device.
        seed: 64-bit seed of the signs.
        field: 32-bit word of the tensor's name.
        shift: where in the table element 0 of the tensor begins.
        start: index of the first element.
        stream: purpose, the third word of the counter.
        step: the fourth word.

    Raises:
        ArgumentError: empty totals or negative start.
        MismatchError: totals that are not float64 on the gradient's device; tensors not flat and contiguous.
        UnsupportedError: a tensor is sparse or not floating, or the totals are recorded by autograd.

    >>> import torch
    >>> totals, table = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0])
    >>> gradient = torch.zeros(4)
    >>> materialize_sketch_(gradient, gradient, table, seed=7, field=1, shift=0)
    >>> project_sketch_(totals, gradient, seed=7, field=1, shift=0)
    >>> totals.tolist()
    [2.0, 4.0]
    """
    check_written("totals", totals)
    check_flat("gradient", gradient)
    check_table("totals", totals, torch.float64, gradient.device)
    check_law("rademacher", start)
    place, shift = _place(field, start, stream, step), shift % totals.numel()
    _serving(gradient, totals).project_sketch_(totals, gradient, _signed(seed), shift, place)
