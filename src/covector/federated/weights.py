"""Client weights as 16-bit fixed point: they add up to exactly one, on every machine."""

from __future__ import annotations

from collections.abc import Sequence

from covector.federated.commit import ONE

__all__ = ["fixed_point", "late_weight"]


def fixed_point(counts: Sequence[int]) -> list[int]:
    """Weights proportional to ``counts`` in units of 2**-16 that sum to exactly 2**16.

    What rounding down leaves over goes to the largest remainders, ties to the first.

    >>> fixed_point([1, 1, 1])
    [21846, 21845, 21845]
    """
    total = sum(counts)
    if total == 0:
        return [0 for _ in counts]
    weights = [count * ONE // total for count in counts]
    remainders = sorted(range(len(counts)), key=lambda i: (-(counts[i] * ONE % total), i))
    for i in remainders[: ONE - sum(weights)]:
        weights[i] += 1
    return weights


def late_weight(count: int, total: int, age: int) -> int:
    """Weight of a reply that is ``age`` rounds late: its share, halved once a round.

    >>> late_weight(1, 2, 3) == (1 << 15) >> 3
    True
    """
    return (count * ONE // total) >> age if total else 0
