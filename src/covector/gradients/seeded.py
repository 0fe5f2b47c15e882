"""Seeded: a gradient as a few (seed, coefficient) pairs; the directions are regenerated where they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector import kernels
from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.gradients.base import Gradient
from covector.random import Distribution, check_distribution, check_seed, field_of

__all__ = ["Seeded"]


def _seed_tensor(seeds: Sequence[int] | Tensor) -> Tensor:
    if isinstance(seeds, Tensor):
        if seeds.dtype != torch.int64 or seeds.ndim != 1:
            raise ArgumentError("seeds", f"{seeds.dtype} {tuple(seeds.shape)}", "an int64 tensor [K]")
        return seeds.detach().cpu()
    return torch.tensor([check_seed(seed) for seed in seeds], dtype=torch.int64)


class Seeded(Gradient):
    """``g = sum_k c_k z(seed_k)``: K coefficients stand for d numbers.

    Momentum, averaging over machines and accumulation only touch the coefficients.

    Args:
        seeds: K seeds of 64 bits.
        coefficients: K numbers, kept in float64.
        distribution: law of the directions, see :func:`covector.random.draw`.

    Raises:
        ArgumentError: unknown distribution, or a seed that is not a 64-bit integer.
        MismatchError: not as many coefficients as seeds.

    Source: Malladi et al., "Fine-tuning language models with just forward passes" (MeZO), 2023; Qin et al.,
    "Federated full-parameter tuning of billion-sized language models ..." (FedKSeed), 2023.

    >>> g = Seeded([1, 2], [0.5, -1.0]) + Seeded([1], [0.25])
    >>> g.seeds.tolist(), g.coefficients.tolist()
    ([1, 2], [0.75, -1.0])
    """

    def __init__(
        self,
        seeds: Sequence[int] | Tensor,
        coefficients: Sequence[float] | Tensor,
        distribution: Distribution = "rademacher",
    ) -> None:
        check_distribution(distribution)
        self.seeds = _seed_tensor(seeds)
        self.coefficients = torch.as_tensor(coefficients, dtype=torch.float64).detach().cpu().clone()
        if self.coefficients.shape != self.seeds.shape:
            raise MismatchError(
                f"{self.coefficients.numel()} coefficients for {self.seeds.numel()} seeds; expected one each"
            )
        self.distribution: Distribution = distribution

    def add_slice_(self, out: Tensor, name: str, start: int = 0, scale: float = 1.0) -> None:
        word = field_of(name).word
        kernels.add_field_(out, self.seeds, self.coefficients * scale, self.distribution, word, start)

    def scaled(self, factor: float) -> Seeded:
        return Seeded(self.seeds, self.coefficients * factor, self.distribution)

    def plus(self, other: Seeded) -> Seeded:
        if other.distribution != self.distribution:
            raise CompositionError(
                f"directions are {self.distribution} on the left and {other.distribution} on the right; "
                "a sum needs one distribution"
            )
        seeds, inverse = torch.cat((self.seeds, other.seeds)).unique(return_inverse=True)
        totals = torch.zeros(seeds.numel(), dtype=torch.float64)
        totals.index_add_(0, inverse, torch.cat((self.coefficients, other.coefficients)))
        return Seeded(seeds, totals, self.distribution)

    def isfinite(self) -> bool:
        return bool(torch.isfinite(self.coefficients).all())

    def zeroed(self) -> Seeded:
        return Seeded(self.seeds, torch.zeros_like(self.coefficients), self.distribution)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Seeded)
            and other.distribution == self.distribution
            and torch.equal(other.seeds, self.seeds)
            and torch.equal(other.coefficients, self.coefficients)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Seeded({self.seeds.numel()} seeds, {self.distribution})"
