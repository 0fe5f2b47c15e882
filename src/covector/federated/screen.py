"""Screen: bounds what a single reply can do.

Scalars that are not finite are left out. Scalars beyond ``bound`` times the running median of magnitudes are
clipped to it or left out. Coordinates are screened by their norm. With ``trim``, the scalars of a round are
winsorized (kept within their ``trim`` and ``1 - trim`` quantiles) and coordinates are averaged by a trimmed mean.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.federated.payloads import SKIPPED, Kind, Payload

__all__ = ["RunningMedian", "Screen", "finite_part", "is_step", "screened"]


@dataclass(frozen=True)
class Screen:
    """How replies are screened.

    Args:
        bound: largest magnitude kept, as a multiple of the running median; ``None`` switches it off.
        policy: ``"clip"`` to the bound or ``"drop"``.
        trim: share of a round's values on each side that the robust mean leaves out or pulls in; 0 is off.

    >>> Screen(bound=32.0).policy
    'clip'
    """

    bound: float | None = 64.0
    policy: Literal["clip", "drop"] = "clip"
    trim: float = 0.0

    def __post_init__(self) -> None:
        if self.bound is not None and not self.bound > 1.0:
            raise ArgumentError("bound", self.bound, "a number above 1, or None")
        if self.policy not in ("clip", "drop"):
            raise ArgumentError("policy", self.policy, "'clip' or 'drop'")
        if not 0.0 <= self.trim < 0.5:
            raise ArgumentError("trim", self.trim, "a share from 0 to below 0.5")

    def limit(self, values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """``(values, changed)``: values outside ``low .. high`` clipped to it, or NaN where dropped."""
        outside = (values < low) | (values > high)
        if self.policy == "drop":
            return torch.where(outside, torch.nan, values), outside
        return values.clamp(low, high), outside


class RunningMedian:
    """The median of the last rounds' median magnitudes: a scale that one bad round does not move.

    >>> median = RunningMedian()
    >>> median.observe(torch.tensor([1.0, -3.0, 2.0])); median.value
    2.0
    """

    def __init__(self, rounds: int = 8) -> None:
        self._medians: deque[float] = deque(maxlen=rounds)

    def observe(self, values: Tensor) -> None:
        """Add the values of one round."""
        magnitudes = values.abs()
        magnitudes = magnitudes[magnitudes > 0]
        if magnitudes.numel():
            self._medians.append(float(magnitudes.double().median()))

    @property
    def value(self) -> float | None:
        """The running median, ``None`` before the first round."""
        return statistics.median(self._medians) if self._medians else None


def is_step(payload: Payload) -> Tensor:
    """Which of a payload's scalars are steps that were taken (negative zero marks those that were not)."""
    if payload.kind == Kind.BYTES:
        return payload.numbers != SKIPPED
    if payload.kind == Kind.UNITS:
        return torch.ones_like(payload.numbers, dtype=torch.bool)
    return ~((payload.numbers == 0) & torch.signbit(payload.numbers))


def finite_part(payload: Payload) -> tuple[Payload | None, int]:
    """``(payload, left out)``: scalars that are not finite become skipped steps; such coordinates are left out whole.

    >>> finite_part(Payload(Kind.SCALARS, torch.tensor([1.0, torch.nan])))[1]
    1
    """
    if payload.isfinite():
        return payload, 0
    if payload.kind not in (Kind.SCALARS, Kind.EXPLICIT):
        return None, payload.numbers.numel()
    bad = ~torch.isfinite(payload.numbers)
    return replace(payload, numbers=torch.where(bad, -0.0, payload.numbers)), int(bad.sum())


def screened(screen: Screen, median: float | None, rho: dict[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """``{client: (scalars, changed)}`` of one round.

    Args:
        screen: the policy.
        median: running median of magnitudes; ``None`` takes the median of this round.
        rho: scalars of each client.

    >>> rho = {0: torch.tensor([1.0, -1.0, 500.0], dtype=torch.float64)}
    >>> screened(Screen(bound=10.0), 1.0, rho)[0][0].tolist()
    [1.0, -1.0, 10.0]
    """
    everything = torch.cat(list(rho.values())) if rho else torch.zeros(0, dtype=torch.float64)
    taken = everything[everything != 0]
    if median is None and taken.numel():
        median = float(taken.abs().median())
    low, high = -float("inf"), float("inf")
    if screen.trim and taken.numel():
        low, high = torch.quantile(taken, torch.tensor([screen.trim, 1 - screen.trim], dtype=taken.dtype)).tolist()
    result = {}
    for client, values in rho.items():
        new, changed = values, torch.zeros_like(values, dtype=torch.bool)
        if screen.bound is not None and median is not None:
            new, changed = screen.limit(values, -screen.bound * median, screen.bound * median)
        pulled = ((new < low) | (new > high)) & (values != 0)
        result[client] = torch.where(pulled, new.clamp(low, high), new), changed | pulled
    return result
