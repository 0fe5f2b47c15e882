"""Deterministic, stratified train / validation / test splits.

The order in which items are drawn is the order of SHA-256 of their ids: it depends on no random generator, no
library version and no machine. Items of one group (sentences of one article) stay in one split.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

__all__ = ["SPLITS", "stratified"]

SPLITS = ("train", "validation", "test")


def stratified(
    ids: Sequence[str],
    strata: Sequence[Hashable],
    groups: Sequence[str] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> list[str]:
    """The split of each item.

    Args:
        ids: one name an item, all different; their hashes give the order of drawing.
        strata: what must be equally represented in each split, e.g. (client, label) pairs.
        groups: items with the same group go to the same split; default: each item on its own.
        validation, test: share of each stratum; train gets the rest. Without groups the share of the whole
            and of each stratum is exact up to rounding; with groups it is met to within about one group.

    Returns:
        ``"train"``, ``"validation"`` or ``"test"`` for each item.

    >>> found = stratified([str(i) for i in range(20)], ["a", "b"] * 10)
    >>> found.count("train"), found.count("validation"), found.count("test")
    (16, 2, 2)
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(ids if groups is None else groups):
        members[group].append(index)
    totals = Counter(strata)
    room = {"test": _quotas(totals, test), "validation": _quotas(totals, validation)}
    found = ["train"] * len(ids)
    for group in sorted(members, key=_draw):
        needed = Counter(strata[i] for i in members[group])
        for split, left in room.items():
            if 2 * (needed & left).total() > needed.total():  # more than half of the group finds room
                left.subtract(needed)
                for index in members[group]:
                    found[index] = split
                break
    return found


def _quotas(totals: Counter[Hashable], share: float) -> Counter[Hashable]:
    """Whole numbers near ``share`` of each total that add up to the rounded share of all.

    Largest remainders, but a stratum that is owed at least half an item and has none comes first.
    """
    exact = {stratum: share * count for stratum, count in totals.items()}
    quotas = Counter({stratum: math.floor(number) for stratum, number in exact.items()})

    def claim(stratum: Hashable) -> tuple[bool, float, str]:
        return not 0.5 <= exact[stratum] < 1.0, quotas[stratum] - exact[stratum], str(stratum)

    quotas.update(sorted(exact, key=claim)[: round(share * totals.total()) - quotas.total()])
    return quotas


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8")).digest()
