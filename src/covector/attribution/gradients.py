"""The gradient of a chosen output with respect to the input, and the chunks in which many copies are worked on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from covector.attribution.selection import Function, Target, check_inputs, labels_of, select
from covector.errors import ArgumentError

__all__ = ["blocks", "expand", "input_gradient", "per_row", "row_gradients"]


def input_gradient(
    f: Function, x: Tensor, target: Target = None, *, labels: Tensor | None = None, chunk: int = 64
) -> Tensor:
    """The gradient of each example's output with respect to its input: a plain saliency map, signed.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        target: which output, see :func:`select`.
        labels: what belongs to each example, for a ``target`` that is a function of both.
        chunk: at most so many examples at a time.

    Returns:
        As ``x``.

    Raises:
        ArgumentError, MismatchError: inputs or a target that do not fit, see :func:`select`.
        CompositionError: a module in training mode that mixes its examples.
        UnsupportedError: inputs that are not floating point.

    >>> input_gradient(lambda x: x**2, torch.tensor([[3.0], [-1.0]])).flatten()
    tensor([ 6., -2.])
    """
    check_inputs(f, x)
    own = labels_of(target, labels, x)
    out = torch.empty_like(x)
    for examples, _ in blocks(len(x), 1, chunk):
        out[examples] = row_gradients(f, x[examples], target, None if own is None else own[examples])
    return out


def row_gradients(f: Function, rows: Tensor, target: Target, labels: Tensor | None) -> Tensor:
    """The gradient of each row's chosen output; parameters get none."""
    with torch.enable_grad():
        rows = rows.detach().requires_grad_()
        chosen = select(f(rows), target, labels)
        (found,) = torch.autograd.grad(chosen.sum(), rows)
    return found


def blocks(examples: int, copies: int, chunk: int) -> Iterator[tuple[slice, range]]:
    """Examples and copies of them that fit in a chunk of rows; all copies of a block of examples, then the next.

    >>> [(block.start, block.stop, list(copies)) for block, copies in blocks(3, 3, chunk=4)]
    [(0, 3, [0]), (0, 3, [1]), (0, 3, [2])]
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ArgumentError("chunk", chunk, "a whole number of rows of at least 1")
    for start in range(0, examples, chunk):
        stop = min(start + chunk, examples)
        each = max(1, chunk // (stop - start))
        for first in range(0, copies, each):
            yield slice(start, stop), range(first, min(first + each, copies))


def expand(labels: Tensor | None, copies: int) -> Tensor | None:
    """Labels of the rows of ``copies`` times the same examples, one copy of all after the other."""
    return None if labels is None else labels.repeat(copies, *[1] * (labels.ndim - 1))


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """``[rows]`` in a shape that multiplies ``[rows, ...]``.

    >>> per_row(torch.ones(2), torch.ones(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    return values.reshape(-1, *[1] * (like.ndim - 1))
