"""Ledger: the exact state of training by scalars.

``theta = theta_0 + 2**-quantum * sum_k c_k z_k`` with integers ``c_k`` over the directions of a pool. Integer
adds commute, so order, batching and topology do not matter; the sum over k is exact, is converted to the
parameters' dtype once and added once, so every IEEE machine gets the same bits. ``theta_0`` is only read.

Bytes (magic ``CVLG``, version 1)::

    u8 pool (1 seeds, 2 sketch), u8 law (0 rademacher, 1 binomial), i64 key, u32 size, u8 quantum,
    u32 clock entries; each: origin (u16 length, UTF-8), i64 last round,
    u8 width (4 or 8), size x i32 or i64 coefficients
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError, CorruptionError, MismatchError, NonFiniteError
from covector.gradients.base import Gradient
from covector.gradients.framing import Reader, array_bytes, frame, text_bytes, unframe
from covector.gradients.pools import Pool, SeedPool, SketchPool
from covector.random import Distribution
from covector.trees import Params, flatview

__all__ = ["Ledger"]

MAGIC, VERSION = b"CVLG", 1
_LAWS: tuple[Distribution, ...] = ("rademacher", "binomial")
_LIMIT = 1 << 62


class Ledger:
    """Integer coefficients over a pool, and a clock of what was applied.

    Args:
        pool: the directions, :class:`SeedPool` or :class:`SketchPool`.
        quantum: s, where one unit is ``2**-s``; from 8 to 56, default 32 (a unit of 2.3e-10).

    Raises:
        ArgumentError: quantum out of range.

    >>> ledger = Ledger(SketchPool(key=1, size=16))
    >>> ledger.apply("client-0", 1, [7], torch.tensor([ledger.units(0.5)]))
    True
    >>> ledger.apply("client-0", 1, [7], torch.tensor([ledger.units(0.5)]))  # a replay changes nothing
    False
    >>> ledger.materialize({"w": torch.zeros(4)})["w"].abs()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, pool: Pool, quantum: int = 32) -> None:
        if isinstance(quantum, bool) or not isinstance(quantum, int) or not 8 <= quantum <= 56:
            raise ArgumentError("quantum", quantum, "a whole number from 8 to 56")
        self.pool = pool
        self.quantum = quantum
        self.coefficients = torch.zeros(pool.size, dtype=torch.int64)
        self.clock: dict[str, int] = {}

    def units(self, value: float) -> int:
        """``value`` as a whole number of units, rounded to nearest.

        >>> Ledger(SketchPool(1, 16), quantum=10).units(0.5)
        512
        """
        if not math.isfinite(value):
            raise NonFiniteError(f"value={value}: a ledger holds finite numbers only; skip the step that produced it")
        return round(math.ldexp(value, self.quantum))

    def values(self) -> Tensor:
        """The coefficients as real numbers, float64 ``[size]``."""
        return self.coefficients.double() * 2.0**-self.quantum

    def gradient(self) -> Gradient:
        """What has been added so far, ``theta - theta_0``, in the pool's carrier."""
        return self.pool.combination(self.values())

    def add_(self, identities: Sequence[int], units: Tensor) -> None:
        """Add ``units[i]`` (int64) along the direction ``identities[i]``; commutative, the clock untouched.

        Raises:
            MismatchError: not one unit for each identity, or units that are not int64.
            ArgumentError: an identity outside the pool, or a total beyond 2**62.
        """
        if units.dtype != torch.int64 or units.shape != (len(identities),):
            raise MismatchError(f"units are {units.dtype} {tuple(units.shape)}; expected int64 ({len(identities)},)")
        total = self.coefficients.clone()
        self.pool.add_(total, identities, units)
        self._replace(total, units.double().abs().sum())

    def add_coordinates_(self, units: Tensor) -> None:
        """Add a whole vector of coordinates, int64 ``[size]``: what a client with a dense gradient sends."""
        if units.dtype != torch.int64 or units.shape != (self.pool.size,):
            raise MismatchError(f"units are {units.dtype} {tuple(units.shape)}; expected int64 ({self.pool.size},)")
        self._replace(self.coefficients + units, units.double().abs().max())

    def _replace(self, total: Tensor, added: Tensor) -> None:
        if float(self.coefficients.double().abs().max()) + float(added) >= _LIMIT:
            raise ArgumentError("units", float(added), "a smaller step or a coarser quantum: the sum leaves 62 bits")
        self.coefficients = total

    def apply(self, origin: str, round: int, identities: Sequence[int], units: Tensor) -> bool:
        """:meth:`add_` once for each (origin, round): a message that comes twice is ignored.

        Rounds of one origin must come in order; rounds may be missing.

        Returns:
            Whether it was applied (``False``: this round of this origin, or a later one, was already in).
        """
        if round <= self.clock.get(origin, -1):
            return False
        self.add_(identities, units)
        self.clock[origin] = round
        return True

    def merge_(self, other: Ledger) -> None:
        """Add another ledger over the same pool whose entries are not in this one yet; clocks join.

        Raises:
            MismatchError: another pool or quantum.
        """
        if other.pool != self.pool or other.quantum != self.quantum:
            raise MismatchError(f"cannot merge {other!r} into {self!r}: pool and quantum must be the same")
        self.add_coordinates_(other.coefficients)
        for origin, round in other.clock.items():
            self.clock[origin] = max(round, self.clock.get(origin, -1))

    def copy(self) -> Ledger:
        """An independent copy (the pool is shared)."""
        twin = Ledger(self.pool, self.quantum)
        twin.coefficients = self.coefficients.clone()
        twin.clock = dict(self.clock)
        return twin

    @torch.no_grad()
    def materialize(self, theta0: Params, out: Params | None = None) -> Params:
        """``theta_0`` plus everything in the ledger: one pass over the parameters.

        Args:
            theta0: the base parameters, only read.
            out: written in place if given (may be live parameters; may be ``theta0`` itself), else allocated.

        Returns:
            ``out``.
        """
        if out is None:
            out = {name: torch.empty_like(t, requires_grad=False) for name, t in theta0.items()}
        trees.check_same(theta0, out, ("theta0", "out"))
        for name, base in theta0.items():
            if base.numel():
                self.pool.materialize_(flatview(out[name]), flatview(base), self.coefficients, self.quantum, name)
        return out

    def digest(self) -> str:
        """SHA-256 of the coefficients and the pool, clock left out: equal when the parameters are.

        >>> Ledger(SketchPool(1, 16)).digest() == Ledger(SketchPool(1, 16)).digest()
        True
        """
        return hashlib.sha256(self._head() + array_bytes(self.coefficients)).hexdigest()

    def to_bytes(self) -> bytes:
        """The ledger as a frame; see the module's layout."""
        parts = [self._head(), struct.pack("<I", len(self.clock))]
        parts += [text_bytes(origin) + struct.pack("<q", round) for origin, round in sorted(self.clock.items())]
        narrow = int(self.coefficients.abs().max()) < 1 << 31
        stored = self.coefficients.to(torch.int32) if narrow else self.coefficients
        parts += [struct.pack("<B", 4 if narrow else 8), array_bytes(stored)]
        return frame(MAGIC, VERSION, b"".join(parts))

    def _head(self) -> bytes:
        pool = self.pool
        if isinstance(pool, SeedPool):
            kind, law = 1, _LAWS.index(pool.distribution)
        else:
            kind, law = 2, 0
        return struct.pack("<BBqIB", kind, law, pool.key, pool.size, self.quantum)

    @classmethod
    def from_bytes(cls, data: bytes, largest: int = 1 << 22) -> Ledger:
        """The ledger in ``data``; pools wider than ``largest`` are refused before anything is allocated.

        Raises:
            CorruptionError: truncated, changed, of an unknown version or inconsistent.
        """
        reader = Reader(unframe(data, MAGIC, VERSION))
        kind, law, key, size, quantum = reader.unpack("<BBqIB")
        if kind not in (1, 2) or law >= len(_LAWS) or not 1 <= size <= largest or not 8 <= quantum <= 56:
            raise CorruptionError(
                f"ledger header (kind {kind}, law {law}, size {size}, quantum {quantum}) is not valid"
            )
        (entries,) = reader.unpack("<I")
        clock = {}
        for _ in range(entries):
            origin = reader.text()
            (clock[origin],) = reader.unpack("<q")
        (width,) = reader.unpack("<B")
        if width not in (4, 8):
            raise CorruptionError(f"coefficients of {width} bytes; expected 4 or 8")
        coefficients = reader.array(torch.int32 if width == 4 else torch.int64, size).to(torch.int64)
        reader.end()
        ledger = cls(SeedPool(key, size, _LAWS[law]) if kind == 1 else SketchPool(key, size), quantum)
        ledger.coefficients, ledger.clock = coefficients, clock
        return ledger

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ledger)
            and (other.pool, other.quantum, other.clock) == (self.pool, self.quantum, self.clock)
            and torch.equal(other.coefficients, self.coefficients)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ledger({self.pool!r}, quantum={self.quantum}, {int(self.coefficients.count_nonzero())} non-zero)"
