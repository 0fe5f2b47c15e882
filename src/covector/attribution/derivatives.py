"""Derivatives of an output with respect to the input, of first, second and third order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from covector.attribution.gradients import blocks, expand, per_row
from covector.attribution.selection import Function, Target, check_inputs, labels_of, select
from covector.errors import ArgumentError, MismatchError, UnsupportedError
from covector.linalg.checks import check_choice

__all__ = ["directional_derivatives", "hessian_vector", "input_derivatives"]


def directional_derivatives(
    f: Function,
    x: Tensor,
    direction: Tensor,
    target: Target = None,
    *,
    labels: Tensor | None = None,
    order: int = 3,
    mode: str = "reverse",
) -> list[Tensor]:
    """``d^k/dt^k f(x + t v)`` at ``t = 0``, for ``k = 0 .. order``: one number an example.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        direction: ``v``, as ``x``.
        target: which output, see :func:`select`.
        labels: what belongs to each example, for a ``target`` that is a function of both.
        order: highest order, 1 to 3.
        mode: ``"reverse"``: repeated backward passes, several times as fast; ``"forward"``: nested forward derivatives,
            which keep nothing for a backward pass, for operations that have them (SiLU has two orders).

    Returns:
        ``order + 1`` tensors ``[B]``.

    Raises:
        ArgumentError: ``order`` or ``mode`` out of range; and as :func:`input_gradient`.
        MismatchError: a direction of another shape than ``x``.
        CompositionError, UnsupportedError: as :func:`input_gradient`.

    >>> x = torch.tensor([[2.0, 1.0]])
    >>> directional_derivatives(lambda x: x[:, 0] ** 3 * x[:, 1], x, torch.tensor([[1.0, 0.0]]))
    [tensor([8.]), tensor([12.]), tensor([12.]), tensor([6.])]
    """
    check_inputs(f, x)
    own = labels_of(target, labels, x)
    _check_order(order)
    if direction.shape != x.shape:
        raise MismatchError(f"direction has shape {tuple(direction.shape)}, x {tuple(x.shape)}")
    return _along(f, x.detach(), direction.to(x), target, own, order, _mode(mode))


def input_derivatives(
    f: Function,
    x: Tensor,
    target: Target = None,
    *,
    labels: Tensor | None = None,
    order: int = 3,
    reduce: str | None = None,
    mode: str = "reverse",
    chunk: int = 1024,
) -> list[Tensor]:
    """The pure derivatives ``d^k f / d x_j^k`` for each element j of the input, of orders ``k = 1 .. order``.

    One row for each example and element, so that an order costs a few passes over ``B d`` rows, not ``d^k``. A network
    of piecewise linear functions (ReLU) has none above the first order: its are 0 almost everywhere.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        target: which output, see :func:`select`; a loss is a function of outputs and ``labels``.
        labels: what belongs to each example, for a ``target`` that is a function of both.
        order: highest order, 1 to 3.
        reduce: ``"mean"`` or ``"abs"``: the mean, or the mean absolute value, over examples; None keeps them.
        mode: as for :func:`directional_derivatives`.
        chunk: at most so many rows at a time, which bounds the memory.

    Returns:
        ``order`` tensors, as ``x`` or, reduced, as ``x[0]``.

    Raises:
        ArgumentError: an option out of range; and as :func:`input_gradient`.
        MismatchError, CompositionError, UnsupportedError: as :func:`input_gradient`.

    Source: "Sensitivity analysis on loss landscape", 2024.

    >>> x = torch.tensor([[2.0, -1.0]])
    >>> first, second, third = input_derivatives(lambda x: (x**3).sum(1), x)
    >>> first, second, third
    (tensor([[12.,  3.]]), tensor([[12., -6.]]), tensor([[6., 6.]]))
    """
    check_inputs(f, x)
    _check_order(order)
    if reduce not in (None, "mean", "abs"):
        raise ArgumentError("reduce", reduce, "None, 'mean' or 'abs'")
    own = labels_of(target, labels, x)
    flat, along = x.detach().flatten(1), _mode(mode)
    found = [torch.empty_like(flat) for _ in range(order)]
    for examples, elements in blocks(len(x), flat.shape[1], chunk):
        count = len(flat[examples])
        rows = flat[examples].repeat(len(elements), 1)
        which = torch.arange(elements.start, elements.stop, device=x.device).repeat_interleave(count)
        direction = torch.nn.functional.one_hot(which, flat.shape[1]).to(x.dtype)
        rows, direction = (part.reshape(-1, *x.shape[1:]) for part in (rows, direction))
        kept = expand(None if own is None else own[examples], len(elements))
        values = _along(f, rows, direction, target, kept, order, along)[1:]
        for out, value in zip(found, values, strict=True):
            out[examples, elements.start : elements.stop] = value.reshape(-1, count).T
    shaped = [out.reshape(x.shape) for out in found]
    if reduce is None:
        return shaped
    return [(out.abs() if reduce == "abs" else out).mean(0) for out in shaped]


def hessian_vector(
    f: Function, x: Tensor, vector: Tensor, target: Target = None, *, labels: Tensor | None = None
) -> Tensor:
    """The Hessian of each example's output with respect to its input, times a vector each.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        vector: as ``x``.
        target: which output, see :func:`select`.
        labels: what belongs to each example, for a ``target`` that is a function of both.

    Returns:
        As ``x``.

    Raises:
        ArgumentError, MismatchError, CompositionError, UnsupportedError: as :func:`directional_derivatives`.

    >>> hessian_vector(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0., 1.]])
    """
    check_inputs(f, x)
    own = labels_of(target, labels, x)
    if vector.shape != x.shape:
        raise MismatchError(f"vector has shape {tuple(vector.shape)}, x {tuple(x.shape)}")
    with torch.enable_grad():
        rows = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(select(f(rows), target, own).sum(), rows, create_graph=True)
        inner = (slope * vector).sum()
        if not inner.requires_grad:  # linear: no second derivative
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(inner, rows, allow_unused=True)
    return torch.zeros_like(x) if found is None else found.detach()


Along = Callable[[Callable[[Tensor], Tensor], Tensor, int], list[Tensor]]


def _along(
    f: Function, x: Tensor, direction: Tensor, target: Target, labels: Tensor | None, order: int, along: Along
) -> list[Tensor]:
    def value(t: Tensor) -> Tensor:
        return select(f(x + per_row(t, x) * direction), target, labels)

    return [found.detach() for found in along(value, torch.zeros(len(x), dtype=x.dtype, device=x.device), order)]


def _forward(value: Callable[[Tensor], Tensor], t: Tensor, order: int) -> list[Tensor]:
    """Each row's value and derivatives by its own ``t``; one more derivative is one more tangent of the last."""
    one = torch.ones_like(t)

    def raised(lower: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def upper(t: Tensor) -> Any:
            both: tuple[Any, ...] = jvp(lower, (t,), (one,))
            return (*both[0], both[1][-1])

        return upper

    function: Callable[[Tensor], Any] = lambda t: (value(t),)  # noqa: E731  # raised below, as often as asked for
    for _ in range(order):
        function = raised(function)
    try:
        with torch.no_grad():
            return list(function(t))
    except NotImplementedError as error:  # torch's word for an operation without forward derivatives
        raise UnsupportedError(f"mode='forward' of order {order}: {error}; mode='reverse' needs none") from error


def _reverse(value: Callable[[Tensor], Tensor], t: Tensor, order: int) -> list[Tensor]:
    with torch.enable_grad():
        t = t.requires_grad_()
        found = [value(t)]
        for _ in range(order):
            last = found[-1]
            slope = (
                torch.autograd.grad(last.sum(), t, create_graph=True, allow_unused=True)[0]
                if last.requires_grad
                else None
            )
            found.append(torch.zeros_like(t) if slope is None else slope)
    return found


MODES: dict[str, Along] = {"forward": _forward, "reverse": _reverse}


def _mode(mode: str) -> Along:
    check_choice("mode", mode, tuple(MODES))
    return MODES[mode]


def _check_order(order: int) -> None:
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= 3:
        raise ArgumentError("order", order, "1, 2 or 3")
