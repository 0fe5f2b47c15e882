"""Directions: along what a probe differentiates. Each is a pure function of a 64-bit seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from covector.errors import ArgumentError
from covector.gradients import Gradient, LowRank, Pool, Seeded
from covector.random import Distribution, check_distribution, derive, draw
from covector.trees import Params

__all__ = ["Directions", "FieldDirections", "LowRankDirections", "PoolDirections", "as_directions"]


class Directions(Protocol):
    """A law of directions with mean 0 and identity covariance (up to what its class states)."""

    def sample(self, seed: int, step: int, params: Params) -> Gradient:
        """The direction number ``step`` of ``seed``, in a carrier."""
        ...


@dataclass(frozen=True)
class FieldDirections:
    """Independent numbers for every parameter: MeZO's directions.

    Args:
        distribution: ``"rademacher"`` (least variance), ``"binomial"`` or ``"normal"``.

    >>> import torch
    >>> FieldDirections().sample(1, 0, {"w": torch.zeros(2)})
    Seeded(1 seeds, rademacher)
    """

    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        check_distribution(self.distribution)

    def sample(self, seed: int, step: int, params: Params) -> Seeded:
        return Seeded([derive(seed, "direction", step)], [1.0], self.distribution)


@dataclass(frozen=True)
class PoolDirections:
    """Directions of a pool: one of K seeds (FedKSeed), or a Rademacher vector in a sketch.

    Args:
        pool: a :class:`~covector.gradients.SeedPool` or :class:`~covector.gradients.SketchPool`.

    >>> import torch
    >>> from covector.gradients import SketchPool
    >>> PoolDirections(SketchPool(1, 64)).sample(1, 0, {}).x.shape
    torch.Size([64])
    """

    pool: Pool

    def sample(self, seed: int, step: int, params: Params) -> Gradient:
        (identity,) = self.pool.draw(derive(seed, "direction", step), 1)
        return self.pool.direction(identity)


@dataclass(frozen=True)
class LowRankDirections:
    """``U V^T / sqrt(r)`` for matrices, with ``V`` kept for ``refresh`` steps; signs for the other tensors.

    Args:
        rank: r.
        refresh: steps between two draws of ``V``.

    Raises:
        ArgumentError: rank or refresh below 1.

    Source: Chen et al., "Enhancing zeroth-order fine-tuning for language models with low-rank structures"
    (LOZO), 2024; here with the factor that makes the covariance the identity.

    >>> import torch
    >>> LowRankDirections(rank=2).sample(1, 0, {"w": torch.zeros(3, 4), "b": torch.zeros(3)})
    LowRank(1 matrices, rank 2)
    """

    rank: int = 2
    refresh: int = 50

    def __post_init__(self) -> None:
        for name in ("rank", "refresh"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, getattr(self, name), "a whole number of at least 1")

    def sample(self, seed: int, step: int, params: Params) -> LowRank:
        window = step // self.refresh
        factors = {}
        for name, p in params.items():
            if p.ndim < 2 or p.numel() == 0:
                continue
            rows, width = p.shape[0], p.numel() // p.shape[0]
            u = draw(derive(seed, "u", step), name, rows * self.rank, "rademacher", device=p.device)
            v = draw(derive(seed, "v", window), name, width * self.rank, "rademacher", device=p.device)
            factors[name] = (u.view(rows, self.rank) / self.rank**0.5, v.view(width, self.rank))
        return LowRank(factors, Seeded([derive(seed, "direction", step)], [1.0]))


def as_directions(directions: str | Pool | Directions) -> Directions:
    """The directions meant by a distribution's name, a pool, or an object with ``sample``.

    >>> as_directions("normal")
    FieldDirections(distribution='normal')
    """
    if isinstance(directions, Pool):
        return PoolDirections(directions)
    if isinstance(directions, str):
        if directions not in ("rademacher", "binomial", "normal"):
            raise ArgumentError(
                "directions",
                directions,
                "'rademacher', 'binomial', 'normal', a SeedPool, a SketchPool or LowRankDirections",
            )
        return FieldDirections(directions)  # type: ignore[arg-type]
    if not hasattr(directions, "sample"):
        raise ArgumentError("directions", directions, "a distribution's name, a pool, or an object with .sample")
    return directions
