"""What a sketch server does with replies: estimates to vectors, vectors to a mean, a step to ledger units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from covector.federated.commit import SCALE_RANGE, UNIT_LIMIT, Displacement, Settings, factor, ids_of, units_of
from covector.federated.header import RunHeader
from covector.federated.payloads import Payload
from covector.federated.screen import is_step
from covector.gradients import OneByte
from covector.random import derive

__all__ = ["combined", "displacement", "trimmed_mean"]

_GRID_TOP = 2.0 ** (63 / 8)


def trimmed_mean(vectors: Tensor, trim: float) -> Tensor:
    """Mean over clients ``[n, N] -> [N]`` without the ``trim`` share of largest and smallest of each coordinate.

    >>> trimmed_mean(torch.tensor([[1.0], [2.0], [3.0], [900.0]]), 0.25)
    tensor([2.5000])
    """
    cut = min(math.ceil(trim * len(vectors)), (len(vectors) - 1) // 2)
    return vectors.sort(0).values[cut : len(vectors) - cut].mean(0)


def combined(header: RunHeader, settings: Settings, client: int, payload: Payload) -> Tensor:
    """``(1/n) sum_i rho_i h_i`` over the steps that were taken, float64 ``[N]``; the sum is exact."""
    units = units_of(header, settings, payload)
    total = torch.zeros(header.pool.size, dtype=torch.int64)
    header.pool.add_(total, ids_of(header, settings, client, payload), units)
    taken = int(is_step(payload).sum())
    return total.double() / factor(header, settings) / max(1, taken)


def displacement(header: RunHeader, settings: Settings, step: Tensor) -> Displacement:
    """``-lr step`` in ledger units, exact or in one byte a coordinate (unbiased)."""
    units = (step * (-settings.lr * 2.0**header.quantum)).clamp(-UNIT_LIMIT, UNIT_LIMIT)
    if header.down == "exact":
        return Displacement(units.round().to(torch.int64))
    wanted = float(units.abs().max()) / _GRID_TOP
    scale = int(min(max(math.ceil(wanted), SCALE_RANGE[0]), SCALE_RANGE[1]))
    codes = OneByte(scale).encode(units, derive(header.key, "displacement", settings.round))
    return Displacement(codes, scale)
