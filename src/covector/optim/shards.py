"""Work on the matrices of a batch divided among processes that all hold the batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Shards"]


class Shards:
    """Process r of n works on the matrices r, r + n, r + 2 n, ...; then every process gets all results.

    Args:
        group: a process group of ``torch.distributed``; ``"world"`` for all processes; None for this one alone.

    >>> shards = Shards(None)
    >>> batch = torch.arange(3.0).reshape(3, 1, 1)
    >>> torch.equal(shards.gather(shards.own(batch), 3), batch)
    True
    """

    def __init__(self, group: Any) -> None:
        self.group = None if isinstance(group, str) else group
        alone = group is None or not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if alone else dist.get_rank(self.group)
        self.size = 1 if alone else dist.get_world_size(self.group)

    def own(self, batch: Tensor) -> Tensor:
        """This process's part of ``[batch, ...]``."""
        return batch[self.rank :: self.size]

    def gather(self, own: Tensor, count: int) -> Tensor:
        """The results for all ``count`` matrices, from every process's own; all processes must call it."""
        if self.size == 1:
            return own
        rows = -(-count // self.size)
        padded = own.new_zeros(rows, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.group)
        # the r-th of a round of n comes from process r
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]
