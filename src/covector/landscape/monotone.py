"""Does a sequence only ever fall? A checker for quantities that a theorem says never increase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Monotone", "monotone"]


class Monotone(NamedTuple):
    """How a sequence falls.

    Attributes:
        holds: whether no step rises by more than the tolerance.
        rises: how many steps do.
        worst: the largest rise of one step, relative to the value before; 0 where none rises.
        step: where it is: ``values[step + 1]`` exceeds ``values[step]``.
    """

    holds: bool
    rises: int
    worst: float
    step: int


def monotone(values: Sequence[float] | Tensor, rtol: float = 0.0) -> Monotone:
    """Check that a sequence never increases by more than ``rtol`` times its value.

    Args:
        values: finite numbers, at least one.
        rtol: what measuring may get wrong (default 0).

    Returns:
        A :class:`Monotone`.

    Raises:
        ArgumentError: no values, or one that is NaN or infinite.

    >>> monotone([3.0, 2.0, 2.5, 1.0])
    Monotone(holds=False, rises=1, worst=0.25, step=1)
    """
    series = torch.as_tensor(values, dtype=torch.float64)
    if series.numel() == 0 or not bool(series.isfinite().all()):
        raise ArgumentError("values", f"{series.numel()} values", "at least one, all finite")
    if len(series) == 1:
        return Monotone(True, 0, 0.0, 0)
    rise = (series[1:] - series[:-1]) / series[:-1].abs().clamp_min(torch.finfo(torch.float64).tiny)
    step = int(rise.argmax())
    rises = int((rise > rtol).sum())
    return Monotone(rises == 0, rises, max(float(rise[step]), 0.0), step)
