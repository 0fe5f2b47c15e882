"""Checks of hyperparameters and of tensors, before anything changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError, UnsupportedError

__all__ = [
    "check_form",
    "check_fractions",
    "check_gradient",
    "check_gradients",
    "check_nonnegative",
    "check_parameter",
    "check_positive",
    "check_states",
]


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
    """A gradient is dense, of its parameter's dtype and size.

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
    if grad.layout is not torch.strided:
        raise UnsupportedError(
            f"the gradient of a parameter of shape {shape} is sparse; pass sparse=False to nn.Embedding, "
            "or use torch.optim.SparseAdam for it"
        )
    if grad.dtype != param.dtype:
        raise UnsupportedError(
            f"the gradient of a parameter of shape {shape} has dtype {grad.dtype}, the parameter {param.dtype}"
        )
    if grad.numel() != param.numel():
        raise MismatchError(
            f"a parameter has shape {shape}, its gradient {tuple(grad.shape)}: the parameter was given other data "
            "after the gradient was computed; call zero_grad() when it is"
        )


def check_gradients(
    params: Sequence[Tensor], grads: Sequence[Tensor], dtypes: Sequence[torch.dtype], sizes: Sequence[int]
) -> None:
    """:func:`check_gradient` of many parameters, whose gradients, dtypes and sizes are at hand.

    >>> check_gradients([], [], [], [])
    """
    if not (
        {grad.layout for grad in grads} <= {torch.strided}
        and [grad.dtype for grad in grads] == dtypes
        and list(map(Tensor.numel, grads)) == sizes
    ):
        for param in params:
            check_gradient(param)


def check_states(
    params: Sequence[Tensor], states: Sequence[Mapping[str, Any]], names: Sequence[str], sizes: Sequence[int]
) -> None:
    """The tensors of these names have their parameter's size, which is at hand.

    >>> check_states([torch.zeros(3)], [{"exp_avg": torch.zeros(2)}], ["exp_avg"], [3])
    Traceback (most recent call last):
    ...
    covector.errors.MismatchError: a parameter has shape (3,), its state 'exp_avg' (2,): ...
    """
    for name in names:
        if list(map(Tensor.numel, [state[name] for state in states])) == sizes:
            continue
        for param, state in zip(params, states, strict=True):
            if state[name].numel() != param.numel():
                raise MismatchError(
                    f"a parameter has shape {tuple(param.shape)}, its state {name!r} {tuple(state[name].shape)}: the "
                    "parameter was given other data, or the state is another model's; make a new optimizer for it"
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
