"""What all peers of a swarm must agree on before the first message, and the arithmetic that follows from it.

Bytes (magic ``CVSH``, version 1)::

    32 B  SHA-256 of theta_0 (names, shapes, dtypes and bytes, see covector.trees.digest)
    u8 pool (1 seeds, 2 sketch), u8 law (0 rademacher, 1 binomial), i64 pool key, u32 pool size, u8 quantum
    i64   key of the run (directions, rounding)
    f64   learning rate
    i8    binary exponent of eps, i8 binary exponent of the scalars' scale S
    u8    divisor (1 square root of n, 2 n)
    u16   most scalars in one contribution, u16 most peers over the whole run
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError, CorruptionError, CovectorError, MismatchError
from covector.gradients import Gradient, Ledger, OneByte, Pool, SeedPool, SketchPool
from covector.gradients.framing import Reader, frame, unframe
from covector.random import check_seed, derive
from covector.trees import Params

__all__ = ["Divisor", "SwarmHeader"]

Divisor = Literal["sqrt", "mean"]
MAGIC, VERSION = b"CVSH", 1
_LAYOUT = "<32sBBqIBqdbbBHH"
_LAWS = ("rademacher", "binomial")
_DIVISORS: tuple[Divisor, ...] = ("sqrt", "mean")
# a contribution may move its scale by this many octaves from the header's: a bound on what one scalar can do
OCTAVES = 8
# finer than the ledger's units by enough that the encoder's grid has no rounding of its own
_ENCODER_BITS = 40
_LEAST_UNITS, _MOST_UNITS = 1 << 8, 1 << 40


@dataclass(frozen=True)
class SwarmHeader:
    """The immutable header of a run: 84 bytes that every peer must hold identically.

    The update of one iteration with n scalars in all is ``theta <- theta - (lr / sqrt(n)) sum_j rho_j z_j``
    (``divisor="mean"``: ``lr / n``).

    Args:
        base: :func:`covector.trees.digest` of ``theta_0``.
        pool: directions and the ledger's coordinates.
        lr: learning rate.
        key: 64-bit key of the run, from which directions and rounding are derived.
        quantum: the ledger's unit is ``2**-quantum``.
        eps_exponent: ``eps = 2**eps_exponent``, the step of the differences.
        scale_exponent: ``S = 2**scale_exponent``, the scale of the slopes: the code reaches from 0.0043 S to 234 S.
        divisor: ``"sqrt"`` (the paper's code) or ``"mean"``.
        most_samples: most scalars in one contribution.
        most_peers: most peers over the whole run, the ones that left included.

    Raises:
        ArgumentError: a value out of range, or a learning rate so small or large that the ledger's unit does not
            resolve it.

    Source: Zelikman et al., "Just one byte (per gradient)", 2023.

    >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=64), lr=0.1)
    >>> SwarmHeader.from_bytes(header.to_bytes()) == header, len(header.to_bytes())
    (True, 84)
    """

    base: str
    pool: Pool
    lr: float
    key: int = 0
    quantum: int = 32
    eps_exponent: int = -10
    scale_exponent: int = 0
    divisor: Divisor = "sqrt"
    most_samples: int = 1024
    most_peers: int = 256

    def __post_init__(self) -> None:
        if len(self.base) != 64 or set(self.base) - set("0123456789abcdef"):
            raise ArgumentError("base", self.base, "64 hexadecimal digits, as covector.trees.digest returns")
        object.__setattr__(self, "key", check_seed(self.key))
        if not 0.0 < self.lr < math.inf:
            raise ArgumentError("lr", self.lr, "a positive number")
        if self.divisor not in _DIVISORS:
            raise ArgumentError("divisor", self.divisor, "'sqrt' or 'mean'")
        for name, low, high in (
            ("eps_exponent", -40, 20),
            ("scale_exponent", -60, 60),
            ("most_samples", 1, 65535),
            ("most_peers", 1, 65535),
        ):
            if not low <= getattr(self, name) <= high:
                raise ArgumentError(name, getattr(self, name), f"a whole number from {low} to {high}")
        Ledger(self.pool, self.quantum)
        # the scale of a whole swarm of 65535 scalars, and of a single one moved up to its bound, must both fit
        for total, exponent in ((65535, self.scale_exponent), (1, self.scale_exponent + OCTAVES)):
            units = self.scale_units(total, exponent)
            if not _LEAST_UNITS <= units <= _MOST_UNITS:
                raise ArgumentError(
                    "quantum",
                    self.quantum,
                    f"one that puts lr * S = {self.lr} * 2**{self.scale_exponent} between 2**8 and 2**40 units for "
                    f"{total} scalars (now {units})",
                )

    @classmethod
    def of(cls, theta0: Params, pool: Pool, lr: float, **options: int | Divisor) -> SwarmHeader:
        """The header of a run that starts from ``theta0``.

        >>> SwarmHeader.of({"w": torch.zeros(2)}, SketchPool(1, 16), lr=0.5, divisor="mean").divisor
        'mean'
        """
        return cls(trees.digest(theta0), pool, lr, **options)  # type: ignore[arg-type]

    @property
    def eps(self) -> float:
        """Step of the finite differences."""
        return math.ldexp(1.0, self.eps_exponent)

    @functools.cached_property
    def hash(self) -> bytes:
        """SHA-256 of the bytes: what a newcomer shows."""
        return hashlib.sha256(self.to_bytes()).digest()

    @functools.cached_property
    def tag(self) -> int:
        """The first 32 bits of :attr:`hash`, carried by every message."""
        return int.from_bytes(self.hash[:4], "little")

    def check_base(self, theta0: Params) -> None:
        """Refuse parameters that are not this run's ``theta_0``.

        Raises:
            MismatchError: with both hashes.
        """
        seen = trees.digest(theta0)
        if seen != self.base:
            raise MismatchError(f"theta0 has SHA-256 {seen[:16]}..., this run starts from {self.base[:16]}...")

    def ledger(self) -> Ledger:
        """An empty ledger of this run."""
        return Ledger(self.pool, self.quantum)

    def direction_ids(self, iteration: int, origin: int, samples: int) -> list[int]:
        """Ids in the pool of the directions of one contribution.

        Sample j of the peer ``origin`` takes the direction number ``origin + j`` of its iteration, so that it does
        not matter how samples are dealt to peers.

        >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=64), lr=0.1)
        >>> header.direction_ids(3, 10, 2)[1] == header.direction_ids(3, 11, 1)[0]
        True
        """
        drawn = [derive(self.key, "direction", iteration, (origin + j) % (1 << 64)) for j in range(samples)]
        return [seed % self.pool.size for seed in drawn] if isinstance(self.pool, SeedPool) else drawn

    def directions(self, iteration: int, origin: int, samples: int) -> list[Gradient]:
        """The directions along which a peer measures its slopes."""
        return [self.pool.direction(identity) for identity in self.direction_ids(iteration, origin, samples)]

    def scale_units(self, total: int, exponent: int) -> int:
        """``2**exponent * lr / sqrt(total)`` in the ledger's units, by integers only.

        >>> SwarmHeader("0" * 64, SketchPool(1, 64), lr=0.5).scale_units(4, 1) == 2**32 // 2
        True
        """
        above, below = self.lr.as_integer_ratio()
        shift = self.quantum + exponent
        above, below = (above << shift, below) if shift >= 0 else (above, below << -shift)
        if self.divisor == "mean":
            return above // (below * total)
        return math.isqrt(above * above // (below * below * total))

    def allows(self, total: int, exponent: int) -> bool:
        """Whether a contribution may be scaled by ``2**exponent`` where the iteration has ``total`` scalars.

        >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=64), lr=0.5)
        >>> header.allows(10, 3), header.allows(10, 40)
        (True, False)
        """
        near = abs(exponent - self.scale_exponent) <= OCTAVES
        return near and _LEAST_UNITS <= self.scale_units(total, exponent) <= _MOST_UNITS

    def encode(self, slopes: Tensor, iteration: int, origin: int, exponent: int) -> bytes:
        """One byte for each slope, rounded without bias; slopes that are not finite become zero.

        >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=64), lr=0.1)
        >>> header.encode(torch.tensor([1.0, float("nan"), -2.0]), 0, 0, 0)
        b'@\\x00\\xc8'
        """
        finite = torch.where(torch.isfinite(slopes), slopes, 0.0).double()
        values = torch.ldexp(finite, torch.tensor(_ENCODER_BITS - exponent))
        seed = derive(self.key, "rounding", iteration)
        return bytes(_code(1 << _ENCODER_BITS).encode(values, seed, start=origin % (1 << 32)).tolist())

    def units(self, codes: bytes, total: int, exponent: int) -> Tensor:
        """What the ledger adds for these codes: int64, the same on every machine.

        >>> header = SwarmHeader("0" * 64, SketchPool(key=1, size=64), lr=0.5)
        >>> header.units(b"@", 1, 0).item() == -(2**31)
        True
        """
        code = _code(self.scale_units(total, exponent))
        return -code.decode(torch.frombuffer(bytearray(codes), dtype=torch.uint8))

    def to_bytes(self) -> bytes:
        """The header as a frame; see the module's layout."""
        pool = self.pool
        kind, law = (1, _LAWS.index(pool.distribution)) if isinstance(pool, SeedPool) else (2, 0)
        payload = struct.pack(
            _LAYOUT,
            bytes.fromhex(self.base),
            kind,
            law,
            pool.key,
            pool.size,
            self.quantum,
            self.key,
            self.lr,
            self.eps_exponent,
            self.scale_exponent,
            _DIVISORS.index(self.divisor) + 1,
            self.most_samples,
            self.most_peers,
        )
        return frame(MAGIC, VERSION, payload)

    @classmethod
    def from_bytes(cls, data: bytes) -> SwarmHeader:
        """The header in ``data``.

        Raises:
            CorruptionError: truncated, changed, of an unknown version or with values out of range.
        """
        reader = Reader(unframe(data, MAGIC, VERSION))
        base, kind, law, pool_key, size, quantum, key, lr, eps, scale, divisor, samples, peers = reader.unpack(_LAYOUT)
        reader.end()
        if kind not in (1, 2) or law >= len(_LAWS) or not 1 <= divisor <= len(_DIVISORS):
            raise CorruptionError(f"swarm header (pool {kind}, law {law}, divisor {divisor}) is not valid")
        try:
            pool: Pool = SeedPool(pool_key, size, _LAWS[law]) if kind == 1 else SketchPool(pool_key, size)  # type: ignore[arg-type]
            return cls(base.hex(), pool, lr, key, quantum, eps, scale, _DIVISORS[divisor - 1], samples, peers)
        except CovectorError as error:
            raise CorruptionError(f"swarm header is not valid: {error}") from error


@functools.lru_cache(maxsize=4096)
def _code(scale_units: int) -> OneByte:
    return OneByte(scale_units)
