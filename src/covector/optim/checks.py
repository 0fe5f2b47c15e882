"""Checks of hyperparameters and of tensors, before anything changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError

__all__ = ["check_form", "check_fractions", "check_gradient", "check_nonnegative", "check_parameter", "check_positive"]


def check_nonnegative(group: Mapping[str, Any], *names: str) -> None:
    """Each value is a finite number of at least zero.

    >>> check_nonnegative({"lr": -1.0}, "lr")
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: lr=-1.0: expected a finite number of at least 0
    """
    for name in names:
        value = float(group[name])
        if not (math.isfinite(value) and value >= 0.0):
            raise ArgumentError(name, group[name], "a finite number of at least 0")


def check_positive(group: Mapping[str, Any], *names: str) -> None:
    """Each value is a finite number above zero.

    >>> check_positive({"b0": 0.0}, "b0")
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: b0=0.0: expected a finite number above 0
    """
    for name in names:
        value = float(group[name])
        if not (math.isfinite(value) and value > 0.0):
            raise ArgumentError(name, group[name], "a finite number above 0")


def check_fractions(group: Mapping[str, Any], *names: str) -> None:
    """Each value, or each of a tuple of values, lies in [0, 1).

    >>> check_fractions({"betas": (0.9, 1.0)}, "betas")
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: betas=(0.9, 1.0): expected numbers in [0, 1)
    """
    for name in names:
        values = group[name] if isinstance(group[name], (tuple, list)) else (group[name],)
        if not all(0.0 <= float(value) < 1.0 for value in values):
            raise ArgumentError(name, group[name], "numbers in [0, 1)")


def check_parameter(param: Tensor) -> None:
    """A parameter is a real floating-point tensor.

    >>> import torch
    >>> check_parameter(torch.zeros(2, dtype=torch.complex64))
    Traceback (most recent call last):
    ...
    covector.errors.UnsupportedError: a parameter of shape (2,) is complex; optimize torch.view_as_real of it
    """
    shape = tuple(param.shape)
    if param.is_complex():
        raise UnsupportedError(f"a parameter of shape {shape} is complex; optimize torch.view_as_real of it")
    if not param.is_floating_point():
        raise UnsupportedError(f"a parameter of shape {shape} has dtype {param.dtype}; expected floating point")


def check_gradient(param: Tensor) -> None:
    """A gradient is dense and of its parameter's dtype.

    >>> import torch
    >>> p = torch.zeros(2, requires_grad=True)
    >>> p.grad = torch.sparse_coo_tensor([[0]], [1.0], (2,), check_invariants=True)
    >>> check_gradient(p)
    Traceback (most recent call last):
    ...
    covector.errors.UnsupportedError: the gradient of a parameter of shape (2,) is sparse; pass sparse=False to ...
    """
    grad = param.grad
    assert grad is not None
    shape = tuple(param.shape)
    if grad.layout.__str__() != "torch.strided":
        raise UnsupportedError(
            f"the gradient of a parameter of shape {shape} is sparse; pass sparse=False to nn.Embedding, "
            "or use torch.optim.SparseAdam for it"
        )
    if grad.dtype != param.dtype:
        raise UnsupportedError(
            f"the gradient of a parameter of shape {shape} has dtype {grad.dtype}, the parameter {param.dtype}"
        )


def check_form(group: Mapping[str, Any], *others: str) -> None:
    """The form is ``"torch"``, ``"paper"`` or one of the others.

    >>> check_form({"form": "keras"})
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: form='keras': expected 'torch' or 'paper'
    """
    forms = ("torch", "paper", *others)
    if group["form"] not in forms:
        raise ArgumentError("form", group["form"], " or ".join(map(repr, forms)))
