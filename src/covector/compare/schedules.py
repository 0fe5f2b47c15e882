"""Factors of the learning rate: constant, or a warm-up followed by a fall."""

from __future__ import annotations

import math

from covector.errors import ArgumentError

__all__ = ["SCHEDULES", "factor"]

SCHEDULES = ("constant", "cosine", "linear", "wsd")
_WARMUP, _DECAY = 1 / 15, 0.2


def factor(schedule: str, step: int, steps: int) -> float:
    """What the learning rate is multiplied by.

    Args:
        schedule: ``"constant"``; or, after a linear warm-up over a fifteenth of the steps, ``"cosine"`` and
            ``"linear"`` fall to zero at the end, and ``"wsd"`` stays and falls over the last fifth.
        step: from 0.
        steps: of the whole run.

    >>> [round(factor("linear", step, 30), 2) for step in (0, 1, 2, 16, 29)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    if schedule not in SCHEDULES:
        raise ArgumentError("schedule", schedule, "one of " + ", ".join(SCHEDULES))
    if schedule == "constant":
        return 1.0
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if schedule == "linear" else min(1.0, (1 - done) / _DECAY)
