"""The loss along a straight line between two points, and the barrier on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.landscape.slices import losses_at
from covector.objective import Objective
from covector.trees import Params, check_same

__all__ = ["barrier", "line"]


def line(
    objective: Objective, batches: Any, a: Params, b: Params, at: Sequence[float] | Tensor, **options: Any
) -> Tensor:
    """The loss at ``(1 - s) a + s b`` for each s; the live parameters are left alone.

    Args:
        objective: the loss.
        batches: one batch, a list of batches or a loader that can be read again; the same for all points.
        a: where s = 0.
        b: where s = 1.
        at: values of s, ``[m]``; beyond 0 and 1 the line goes on.
        options: ``chunk``, ``memory`` and ``seed`` of :func:`slices`.

    Returns:
        Float64 ``[m]``.

    Raises:
        MismatchError: ``a`` and ``b`` name different tensors.

    >>> parabola = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(1)})
    >>> line(parabola, None, {"x": torch.tensor([-1.0])}, {"x": torch.tensor([1.0])}, [0.0, 0.5, 1.0])
    tensor([1., 0., 1.], dtype=torch.float64)
    """
    check_same(a, b)
    s = torch.as_tensor(at, dtype=torch.float64)
    return losses_at(objective, batches, [a, b], torch.stack([1 - s, s], dim=1), **options)


def barrier(losses: Tensor, at: Sequence[float] | Tensor) -> float:
    """How far the loss rises between the ends: its maximum for s in [0, 1], minus the larger of the two ends.

    Zero where one basin holds both points.

    Args:
        losses: of :func:`line`, ``[m]``.
        at: the values of s, among them 0 and 1.

    Raises:
        MismatchError: losses and s differ in length.
        ArgumentError: 0 or 1 is not among the values of s.

    >>> barrier(torch.tensor([1.0, 3.0, 2.0]), [0.0, 0.5, 1.0])
    1.0
    """
    s = torch.as_tensor(at, dtype=torch.float64)
    if s.shape != losses.shape:
        raise MismatchError(f"losses has shape {tuple(losses.shape)}, at {tuple(s.shape)}")
    ends = [(s - end).abs() < 1e-6 for end in (0.0, 1.0)]
    if not all(bool(end.any()) for end in ends):
        raise ArgumentError("at", s.tolist(), "values with 0 and 1 among them")
    inside = losses[(s > -1e-6) & (s < 1 + 1e-6)].max()
    return float(inside - torch.stack([losses[end].max() for end in ends]).max())
