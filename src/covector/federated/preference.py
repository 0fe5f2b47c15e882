"""Preference: the seed probabilities of FedKSeed-Pro.

Every seed keeps the magnitudes of the scalars measured along it, starting with one zero. With ``h`` clipped to
1000::

    g_k = mean |h_k|        v_k = (g_k - min g) / (max g - min g + 1e-10)        p = softmax(v)

so no seed is drawn more than e times as often as another. There is no ``1 / (K p_k)`` correction: the method
prefers directions of large slope on purpose. The sums are integers, so that the order of replies is immaterial.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Preference"]

BOUND = 1000.0
_UNIT = 2.0**24


class Preference:
    """Histories of K seeds.

    Args:
        size: K.

    Source: Qin et al., "Federated full-parameter tuning of billion-sized language models ...", 2023, Sec. 4.3.

    >>> preference = Preference(2)
    >>> preference.observe([1], torch.tensor([3.0], dtype=torch.float64))
    >>> preference.levels().tolist()[0], round(preference.probabilities()[1].item(), 4)
    (0.0, 0.7311)
    """

    def __init__(self, size: int) -> None:
        self.totals = torch.zeros(size, dtype=torch.int64)
        self.counts = torch.ones(size, dtype=torch.int64)

    def observe(self, ids: Sequence[int], rho: Tensor) -> None:
        """Add one scalar to the history of each id."""
        index = torch.as_tensor(ids, dtype=torch.int64)
        self.totals.index_add_(0, index, (rho.abs().clamp(max=BOUND) * _UNIT).round().to(torch.int64))
        self.counts.index_add_(0, index, torch.ones_like(index))

    def levels(self) -> Tensor:
        """``v``: float64 ``[K]`` in [0, 1)."""
        means = self.totals.double() / _UNIT / self.counts.double()
        low, high = means.min(), means.max()
        return (means - low) / (high + 1e-10 - low)

    def probabilities(self) -> Tensor:
        """``p = softmax(v)``: float64 ``[K]``."""
        return torch.softmax(self.levels(), 0)

    def table(self, compact: bool) -> Tensor | None:
        """What a round announces: fp32 probabilities or one-byte preferences; ``None`` while uniform."""
        levels = self.levels()
        if not bool(levels.any()):
            return None
        return (levels * 255).round().to(torch.uint8) if compact else self.probabilities().to(torch.float32)
