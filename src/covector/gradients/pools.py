"""Pools: the agreed bases in which training by scalars keeps its state.

A pool fixes which directions exist. Its coordinates are integers, so that adding them commutes; what the
integers mean (``theta - theta_0``) is the same on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from covector import kernels
from covector.errors import ArgumentError, UnsupportedError
from covector.gradients.base import Gradient
from covector.gradients.seeded import Seeded
from covector.gradients.sketch import Sketch
from covector.kernels.operands import Place
from covector.kernels.reference import UNIT_EXPONENT, field_integers, work_dtype
from covector.random import (
    Distribution,
    Stream,
    check_distribution,
    check_seed,
    derive_seeds,
    field_of,
    integers,
    uniform,
)

__all__ = ["Pool", "SeedPool", "SketchPool"]

_INT64_MAX = (1 << 63) - 1


class Pool(ABC):
    """A set of directions, numbered, with integer coordinates ``[size]`` for their combinations."""

    key: int
    size: int

    @abstractmethod
    def draw(self, seed: int, count: int, probabilities: Tensor | None = None) -> list[int]:
        """Ids of ``count`` random directions: a pure function of ``seed``."""

    @abstractmethod
    def direction(self, identity: int) -> Gradient:
        """The direction with that id, mean 0 and variance 1 in every coordinate of the parameters."""

    @abstractmethod
    def add_(self, coordinates: Tensor, identities: Sequence[int], units: Tensor) -> None:
        """``coordinates += sum_i units[i] * direction(identities[i])``, exact in int64."""

    @abstractmethod
    def combination(self, coordinates: Tensor) -> Gradient:
        """The gradient with these real coordinates ``[size]``."""

    @abstractmethod
    def materialize_(self, out: Tensor, base: Tensor, coordinates: Tensor, quantum: int, name: str) -> None:
        """``out = base + 2**-quantum * (combination of integer coordinates)`` on the flat tensor ``name``."""


def _check_size(size: int, largest: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= largest:
        raise ArgumentError("size", size, f"a whole number from 1 to {largest}")


def _check_total(coordinates: Tensor) -> None:
    # float64 is exact enough to see a sum of magnitudes near 2**63 coming
    if float(coordinates.double().abs().sum()) >= 2.0**62:
        raise ArgumentError("coefficients", "a sum of magnitudes above 2**62", "a coarser quantum or a smaller step")


@dataclass(frozen=True)
class SeedPool(Pool):
    """K seeds; a direction is the random field of one seed (FedKSeed's pool).

    Args:
        key: 64-bit key from which the K seeds are derived.
        size: K.
        distribution: ``"rademacher"`` or ``"binomial"``: the laws whose sums are exact integers.

    Raises:
        ArgumentError: size out of range or an unknown law.
        UnsupportedError: ``"normal"``, whose sums depend on their order; ``"binomial"`` is its exact stand-in.

    Source: Qin et al., "Federated full-parameter tuning of billion-sized language models with communication
    cost under 18 kilobytes", 2023.

    >>> pool = SeedPool(key=1, size=8)
    >>> pool.direction(3) == Seeded([int(pool.seeds[3])], [1.0])
    True
    """

    key: int
    size: int = 4096
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        check_seed(self.key)
        _check_size(self.size, 1 << 24)
        check_distribution(self.distribution)
        if self.distribution not in UNIT_EXPONENT:
            raise UnsupportedError(
                f"distribution={self.distribution!r}: a ledger needs a law of integers; use 'rademacher' or "
                "'binomial' (near Gaussian)"
            )

    @cached_property
    def seeds(self) -> Tensor:
        """The K seeds, int64 ``[K]``."""
        return derive_seeds(self.key, self.size)

    def draw(self, seed: int, count: int, probabilities: Tensor | None = None) -> list[int]:
        if probabilities is None:
            return integers(seed, self.size, count).tolist()
        cumulative = probabilities.double().cumsum(0)
        points = uniform(seed, count) * cumulative[-1]
        return torch.searchsorted(cumulative, points, right=True).clamp(max=self.size - 1).tolist()

    def direction(self, identity: int) -> Seeded:
        if not 0 <= identity < self.size:
            raise ArgumentError("identity", identity, f"an index below the pool's size {self.size}")
        return Seeded(self.seeds[identity : identity + 1], [1.0], self.distribution)

    def add_(self, coordinates: Tensor, identities: Sequence[int], units: Tensor) -> None:
        index = torch.as_tensor(identities, dtype=torch.int64)
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.size:
            raise ArgumentError("identities", [int(index.min()), int(index.max())], f"indices below {self.size}")
        coordinates.index_add_(0, index, units.to(torch.int64))

    def combination(self, coordinates: Tensor) -> Seeded:
        used = coordinates.nonzero().flatten()
        return Seeded(self.seeds[used], coordinates[used].double(), self.distribution)

    def materialize_(self, out: Tensor, base: Tensor, coordinates: Tensor, quantum: int, name: str) -> None:
        _check_total(coordinates * 32 if self.distribution == "binomial" else coordinates)
        used = coordinates.nonzero().flatten()
        exponent = quantum + UNIT_EXPONENT[self.distribution]
        word = field_of(name).word
        kernels.materialize_seeded_(out, base, self.seeds[used], coordinates[used], self.distribution, exponent, word)


@dataclass(frozen=True)
class SketchPool(Pool):
    """N numbers spread over all parameters by seeded signs; a direction is a Rademacher N-vector.

    The state is N integers however many steps were taken; a dense gradient projects onto it
    (:func:`covector.gradients.project`), so clients with and without backpropagation share one pool.

    Args:
        key: 64-bit key of the signs.
        size: N; a power of two is fastest.

    >>> pool = SketchPool(key=1, size=64)
    >>> pool.direction(5).x.unique().tolist()
    [-1.0, 1.0]
    """

    key: int
    size: int = 4096

    def __post_init__(self) -> None:
        check_seed(self.key)
        _check_size(self.size, 1 << 26)

    def signs(self, identity: int) -> Tensor:
        """The direction's N signs, int64 ``[N]``."""
        place = Place(stream=int(Stream.DIRECTIONS))
        return field_integers(check_seed(identity), "rademacher", self.size, place)

    def draw(self, seed: int, count: int, probabilities: Tensor | None = None) -> list[int]:
        if probabilities is not None:
            raise UnsupportedError("a sketch pool has unlimited directions; probabilities need a SeedPool")
        return derive_seeds(seed, count).tolist()

    def direction(self, identity: int) -> Sketch:
        return Sketch(self.key, self.signs(identity).to(torch.float32))

    def add_(self, coordinates: Tensor, identities: Sequence[int], units: Tensor) -> None:
        for identity, unit in zip(identities, units.tolist(), strict=True):
            coordinates += self.signs(identity) * unit

    def combination(self, coordinates: Tensor) -> Sketch:
        return Sketch(self.key, coordinates.double())

    def materialize_(self, out: Tensor, base: Tensor, coordinates: Tensor, quantum: int, name: str) -> None:
        field = field_of(name)
        table = (coordinates.to(work_dtype(out.dtype)) * 2.0**-quantum).to(out.device)
        stream = int(Stream.SKETCH_SIGNS)
        kernels.materialize_sketch_(out, base, table, self.key, field.word, field.shift, 0, stream)
