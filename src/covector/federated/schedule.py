"""Learning-rate schedules: the rate of a round, computed by the server and sent with it."""

from __future__ import annotations

import math

from covector.federated.header import RunHeader

__all__ = ["rate"]


def rate(header: RunHeader, round: int) -> float:
    """The learning rate of ``round`` (from 1).

    ``constant``: lr. ``linear``: ``lr (1 - (r - 1) / R)``. ``cosine``: ``lr (1 + cos(pi (r - 1) / R)) / 2``; both
    stay at their last positive value after R rounds.

    >>> from covector.gradients import SeedPool
    >>> header = RunHeader("00" * 32, SeedPool(1, 8), 1.0, schedule="linear", rounds=4)
    >>> [rate(header, r) for r in (1, 2, 4, 9)]
    [1.0, 0.75, 0.25, 0.25]
    """
    done = (min(round, header.rounds) - 1) / header.rounds
    if header.schedule == "linear":
        return header.lr * (1 - done)
    if header.schedule == "cosine":
        return header.lr * (1 + math.cos(math.pi * done)) / 2
    return header.lr
