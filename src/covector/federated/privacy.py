"""Differential privacy for scalars: clip, add Gaussian noise, account for it.

A scalar rho is clipped to ``[-C, C]`` and gets noise of standard deviation ``sigma C`` before it is used or sent.
One whole client is the unit of privacy: adding or removing it changes each of its scalars by at most C, so a
scalar is one Gaussian mechanism with noise multiplier sigma, and a client that answers R rounds of tau steps is
their composition ``R tau`` times. (If "replaced by another client" is meant instead, halve sigma.)

The noise must not be predictable, so it comes from the operating system; a seed is for tests only.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, require_extra

__all__ = ["GaussianNoise", "epsilon"]


class GaussianNoise:
    """Clips to C and adds N(0, (sigma C)^2).

    Args:
        clip: C, in the unit of the scalars.
        sigma: noise multiplier.
        seed: reproducible noise, for tests only: it protects nothing.

    Raises:
        ArgumentError: clip or sigma not positive.

    >>> round(GaussianNoise(clip=2.0, sigma=1e-9, seed=1).scalar(5.0), 3)
    2.0
    """

    def __init__(self, clip: float, sigma: float, seed: int | None = None) -> None:
        for name, value in (("clip", clip), ("sigma", sigma)):
            if not 0.0 < value < float("inf"):
                raise ArgumentError(name, value, "a positive finite number")
        self.clip = float(clip)
        self.sigma = float(sigma)
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    def scalar(self, value: float) -> float:
        """One scalar, clipped and noised."""
        bounded = min(max(value, -self.clip), self.clip)
        return bounded + self.sigma * self.clip * self._random.gauss(0.0, 1.0)

    def vector(self, values: Tensor) -> Tensor:
        """A vector, its Euclidean norm clipped to C, with independent noise in every coordinate."""
        wide = values.double()
        wide = wide * min(1.0, self.clip / max(float(wide.norm()), 1e-300))
        noise = [self._random.gauss(0.0, 1.0) for _ in range(wide.numel())]
        return wide + self.sigma * self.clip * torch.tensor(noise, dtype=torch.float64)


def epsilon(sigma: float, releases: int, delta: float = 1e-5) -> float:
    """Epsilon after ``releases`` scalars (rounds answered times tau) at noise multiplier ``sigma``.

    Rényi accounting of the plain composition; no amplification by sampling is claimed.

    Args:
        sigma: noise multiplier.
        releases: scalars (or vectors) released.
        delta: the failure probability.

    Raises:
        ArgumentError: a value out of range.
        MissingExtraError: ``dp-accounting`` is not installed.

    >>> epsilon(sigma=2.0, releases=10) < epsilon(sigma=1.0, releases=10)
    True
    """
    for name, value in (("sigma", sigma), ("delta", delta)):
        if not value > 0.0:
            raise ArgumentError(name, value, "a positive number")
    if releases < 0:
        raise ArgumentError("releases", releases, "a whole number of at least 0")
    require_extra("dp_accounting", "federated")
    import dp_accounting

    accountant: Any = dp_accounting.rdp.RdpAccountant()
    if releases:
        accountant.compose(dp_accounting.GaussianDpEvent(sigma), releases)
    return float(accountant.get_epsilon(delta))
