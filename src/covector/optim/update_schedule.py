"""How often a preconditioner is renewed: a share of the steps, which may fall as training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

from covector.errors import ArgumentError

__all__ = ["Share", "fading_updates", "share_at"]

Share = float | Callable[[int], float]


def fading_updates(first: int = 500, rate: float = 0.001, least: float = 0.03) -> Callable[[int], float]:
    """``exp(-rate (t - first))`` between ``least`` and 1: every step at first, one in thirty-three in the end.

    Args:
        first: step up to which it is 1.
        rate: of the fall.
        least: what it falls to.

    Source: the schedule that implementations of PSGD share (kron-torch).

    >>> share = fading_updates()
    >>> share(1), round(share(1500), 3), share(10_000)
    (1.0, 0.368, 0.03)
    """
    return lambda t: min(1.0, max(least, math.exp(-rate * (t - first))))


def share_at(share: Share, t: int) -> float:
    """The share of steps that renew, at step t.

    Raises:
        ArgumentError: it is not in (0, 1].

    >>> share_at(0.5, 1)
    0.5
    """
    value = share(t) if callable(share) else share
    if not 0.0 < value <= 1.0:
        raise ArgumentError("update_probability", value, "a number in (0, 1], or a function of the step that gives one")
    return value
