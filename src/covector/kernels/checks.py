"""What the kernels ask of their arguments, checked before anything is written."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError, UnsupportedError
from covector.kernels.fields import ELEMENTS_PER_BLOCK, UNIT_EXPONENT

__all__ = ["check_combination", "check_flat", "check_law", "check_same", "check_table", "check_written"]


def check_flat(name: str, tensor: Tensor) -> None:
    """Kernels walk memory: one dimension, dense, contiguous, floating.

    Raises:
        UnsupportedError: a sparse tensor, or one of integers or complex numbers.
        MismatchError: more than one dimension, or gaps between the elements.
    """
    if tensor.layout != torch.strided or not tensor.dtype.is_floating_point:
        raise UnsupportedError(f"{name}: a {tensor.layout} tensor of {tensor.dtype}; a dense floating one would work")
    if tensor.dim() != 1 or not tensor.is_contiguous():
        raise MismatchError(
            f"{name}: shape {tuple(tensor.shape)}, strides {tensor.stride()}; kernels take flat contiguous memory, "
            "as .contiguous().view(-1) gives"
        )


def check_written(name: str, tensor: Tensor) -> None:
    """As :func:`check_flat`, and autograd is not recording what is about to be overwritten.

    Raises:
        UnsupportedError: as :func:`check_flat`, or the tensor requires a gradient while gradients are recorded.
        MismatchError: as :func:`check_flat`.
    """
    check_flat(name, tensor)
    if tensor.requires_grad and torch.is_grad_enabled():
        raise UnsupportedError(f"{name} requires a gradient and is written in place; call under torch.no_grad()")


def check_same(out: Tensor, base: Tensor) -> None:
    """``base`` is as ``out`` in length, dtype and device.

    Raises:
        MismatchError: it is not.
    """
    check_flat("base", base)
    if base.shape != out.shape or base.dtype != out.dtype or base.device != out.device:
        described = [f"{tensor.numel()} x {tensor.dtype} on {tensor.device}" for tensor in (base, out)]
        raise MismatchError(f"base is {described[0]}, out is {described[1]}; they must be alike")


def check_law(distribution: str, start: int, exact: bool = False) -> None:
    """The distribution is known, has integer sums where they must be exact, and ``start`` is an index.

    Raises:
        ArgumentError: one of these is not so.
    """
    known = UNIT_EXPONENT if exact else ELEMENTS_PER_BLOCK
    if distribution not in known:
        raise ArgumentError("distribution", distribution, " or ".join(repr(name) for name in known))
    if start < 0:
        raise ArgumentError("start", start, "an index of at least 0")


def check_combination(name: str, coefficients: Tensor, seeds: Tensor) -> None:
    """One coefficient a seed.

    Raises:
        MismatchError: the two differ in length or are not one-dimensional.
    """
    if seeds.dim() != 1 or coefficients.shape != seeds.shape:
        raise MismatchError(f"{name} has shape {tuple(coefficients.shape)}, seeds {tuple(seeds.shape)}; expected [K]")


def check_table(name: str, table: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """N numbers, N at least 1, of the dtype and on the device given.

    Raises:
        MismatchError: dtype or device differ, or the table is not flat and contiguous.
        ArgumentError: there are no numbers.
    """
    check_flat(name, table)
    if table.dtype != dtype or table.device != device:
        raise MismatchError(f"{name} is {table.dtype} on {table.device}; expected {dtype} on {device}")
    if table.numel() == 0:
        raise ArgumentError(name, "empty", "at least one number")
