"""Learning-rate schedules: the rate of a round, computed by the server and sent with it."""

from __future__ import annotations

import math

from covector.federated.header import RunHeader

__all__ = ["rate", "share"]


def share(schedule: str, round: int, rounds: int) -> float:
    """What is left of the learning rate in ``round`` of ``rounds``, from 1 downwards.

    >>> [share("linear", r, 4) for r in (1, 2, 4, 9)]
    [1.0, 0.75, 0.25, 0.25]
    """
    done = (min(round, rounds) - 1) / rounds
    if schedule == "linear":
        return 1 - done
    return (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1.0


def rate(header: RunHeader, round: int) -> float:
    """The learning rate of ``round`` (from 1).

    ``constant``: lr. ``linear``: ``lr (1 - (r - 1) / R)``. ``cosine``: ``lr (1 + cos(pi (r - 1) / R)) / 2``; both
    stay at their last positive value after R rounds.

    >>> from covector.gradients import SeedPool
    >>> header = RunHeader("00" * 32, SeedPool(1, 8), 1.0, schedule="linear", rounds=4)
    >>> [rate(header, r) for r in (1, 2, 4, 9)]
    [1.0, 0.75, 0.25, 0.25]
    """
    return header.lr * share(header.schedule, round, header.rounds)
