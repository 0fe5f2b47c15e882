"""Advance tensors by an elementwise rule, with the backend that suits them."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from covector.kernels import backend
from covector.optim.operations import Many
from covector.optim.rule import Rule
from covector.optim.sharded import any_sharded, local

__all__ = ["Factors", "advance", "native_fits", "same", "state_dtype"]

# of the gradient, of the parameter within the gradient (L2), of the parameter kept, of the direction subtracted
Factors = tuple[Any, Any, Any, Any]
_NATIVE = (torch.float32, torch.float64, torch.bfloat16)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision of arithmetic and states for parameters of a dtype: float64 for float64, float32 for the rest.

    >>> state_dtype(torch.bfloat16)
    torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def advance(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    out: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    coefficients: Sequence[Any],
    factors: Sequence[Factors],
) -> None:
    """``out = keep * p - step * rule(sign * g + decay * p, states)`` for each tensor; states advance in place.

    Args:
        rule: the elementwise rule.
        params: tensors of one dtype and device.
        grads: their gradients, of the same dtype.
        out: tensors that receive the result; ``params`` itself to step in place.
        states: for each of the rule's states, a tensor for each parameter.
        coefficients: the rule's numbers for this step.
        factors: ``(sign, decay, keep, step)`` of each tensor; numbers, or 0-d tensors.

    >>> p, rule = torch.ones(2), Rule(lambda g: (g,), (), lambda t, group: ())
    >>> advance(rule, [p], [torch.ones(2)], [p], [], (), [(1.0, 0.0, 1.0, 0.25)])
    >>> p
    tensor([0.7500, 0.7500])
    """
    if not params:
        return
    columns = [params, grads, out, *states]
    if any_sharded(params):
        params, grads, out, *states = columns = [list(map(local, column)) for column in columns]
    if _native(columns):
        from covector.optim.native import run

        run(rule, params, grads, out, states, coefficients, factors[:1] if same(factors) else factors)
    else:
        _foreach(rule, params, grads, out, states, coefficients, factors)


def native_fits(tensor: Tensor) -> bool:
    """Whether the compiled CPU pass serves tensors like this one.

    >>> native_fits(torch.zeros(2, dtype=torch.complex64))
    False
    """
    return tensor.dtype in _NATIVE and backend(tensor) == "cpu" and os.environ.get("COVECTOR_OPTIM") != "foreach"


def same(values: Sequence[Any]) -> bool:
    """Whether all values are one object: cheap to see, and enough to treat them as one.

    >>> same([0.5] * 3), same([])
    (True, True)
    """
    return all(map(operator.is_, values, itertools.repeat(values[0]))) if values else True


def _native(columns: Sequence[Sequence[Tensor]]) -> bool:
    if torch.compiler.is_compiling() or not native_fits(columns[0][0]):
        return False
    return all(all(map(Tensor.is_contiguous, column)) for column in columns) or all(map(_alike, *columns))


def _alike(*tensors: Tensor) -> bool:
    """Whether the tensors lie in memory in the same order without gaps, so that one index serves them all."""
    first = tensors[0]
    span = 1 + sum((size - 1) * stride for size, stride in zip(first.shape, first.stride(), strict=True))
    return (span == first.numel() or first.numel() == 0) and all(t.stride() == first.stride() for t in tensors)


def _foreach(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    out: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    coefficients: Sequence[Any],
    factors: Sequence[Factors],
) -> None:
    kind = state_dtype(params[0].dtype)
    sign, decay, keep, step = (_common(column) for column in zip(*factors, strict=True))
    x = Many([p.to(kind) for p in params])
    g = Many([g.to(kind) for g in grads]) * sign
    if _nonzero(decay):
        g = g + x * decay
    direction, *new = rule.update(g, *map(Many, states), *coefficients)
    result = x * keep - direction * step
    foreach: Any = torch._foreach_copy_  # carries no types
    for old, fresh in zip(states, new, strict=False):
        foreach(list(old), list(fresh.tensors))
    foreach(list(out), list(result.tensors))


def _common(column: Sequence[Any]) -> Any:
    """One number where all tensors have the same, else the list of them."""
    first = column[0]
    one = same(column) or (
        not any(isinstance(value, Tensor) for value in column) and all(value == first for value in column)
    )
    return first if one else list(column)


def _nonzero(factor: Any) -> bool:
    values = factor if isinstance(factor, list) else [factor]
    return any(isinstance(value, Tensor) or value != 0.0 for value in values)
