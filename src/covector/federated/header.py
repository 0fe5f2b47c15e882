"""RunHeader: what a run is. Immutable; every message names it by the first eight bytes of its SHA-256.

Frame ``CVFH``, version 1, little-endian::

    offset  size  field
    0       32    SHA-256 of theta_0 (:func:`covector.trees.digest`: names, shapes, dtypes, bytes)
    32      1     method: 1 kseed, 2 kseed-pro, 3 sketch
    33      1     pool: 1 seeds, 2 sketch
    34      1     law of the directions: 0 rademacher, 1 binomial
    35      8     pool key, signed
    43      4     pool size (K or N)
    47      1     quantum s: one ledger unit is 2**-s
    48      8     run key, signed: client sampling, step ids, batches and rounding derive from it
    56      8     eps, float64
    64      4     local steps tau: scalars a client sends a round
    68      1     code of the numbers sent up: 0 fp32, 1 bf16 (coordinates only), 2 byte
    69      1     ids of the steps: 0 explicit (sent), 1 derived (a function of run key, round, client, step)
    70      1     learning-rate schedule: 0 constant, 1 linear, 2 cosine
    71      8     learning rate, float64
    79      4     rounds of the schedule
    83      1     weighting of clients: 0 equal, 1 by batches, 2 by examples
    84      4     grad_clip, float32; 0 is off
    88      1     server step: 0 none, 1 sgd, 2 momentum, 3 adam
    89      8     beta1, float64
    97      8     beta2, float64
    105     8     eps of adam, float64
    113     1     code of the server's steps: 0 exact integers, 2 byte

The frame has 128 bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from covector import trees
from covector.errors import ArgumentError, CompositionError, CorruptionError, MismatchError
from covector.gradients import Ledger, Pool, SeedPool, SketchPool
from covector.gradients.framing import Reader, frame, unframe
from covector.random import check_seed
from covector.trees import Params

__all__ = ["PROTOCOL", "RunHeader"]

PROTOCOL = 1
MAGIC = b"CVFH"
_LAYOUT = "<32sBBBqIBqdIBBBdIBfBdddB"
METHODS = ("", "kseed", "kseed-pro", "sketch")
CODES = ("fp32", "bf16", "byte")
IDS = ("explicit", "derived")
SCHEDULES = ("constant", "linear", "cosine")
WEIGHTINGS = ("equal", "batches", "examples")
STEPS = ("none", "sgd", "momentum", "adam")
DOWNS = ("exact", "", "byte")
_LAWS = ("rademacher", "binomial")


@dataclass(frozen=True)
class RunHeader:
    """The immutable description of a run, agreed by all its machines.

    Args:
        theta0: SHA-256 (hex) of the base parameters.
        pool: the directions.
        lr: learning rate.
        method: ``"kseed"``, ``"kseed-pro"`` (both: local steps, summed on the server) or ``"sketch"``
            (gradients in the sketch, averaged, a server step).
        local_steps: tau, scalars a client sends a round.
        eps: step of the differences; a power of two makes products exact.
        code: numbers sent up, ``"fp32"``, ``"bf16"`` or ``"byte"``.
        ids: ``"explicit"`` or ``"derived"``.
        key: the run's 64-bit key.
        quantum: one ledger unit is ``2**-quantum``.
        schedule: ``"constant"``, ``"linear"`` or ``"cosine"`` over ``rounds``.
        rounds: length of the schedule.
        weighting: ``"batches"``, ``"examples"`` or ``"equal"``.
        grad_clip: a local step whose two losses differ by more is skipped; 0 is off.
        server_step: ``"none"`` for kseed; ``"sgd"``, ``"momentum"`` or ``"adam"`` for sketch.
        betas: decay of the server step's moments.
        adam_eps: added to the root of the second moment.
        down: ``"exact"`` integers or one ``"byte"`` a coordinate for the server's steps.

    Raises:
        ArgumentError: a value out of range.
        CompositionError: a method and options that exclude each other.

    >>> header = RunHeader("00" * 32, SeedPool(key=1, size=8), lr=0.5)
    >>> RunHeader.from_bytes(header.to_bytes()) == header, len(header.to_bytes())
    (True, 128)
    """

    theta0: str
    pool: Pool
    lr: float
    method: Literal["kseed", "kseed-pro", "sketch"] = "kseed"
    local_steps: int = 200
    eps: float = 2.0**-11
    code: Literal["fp32", "bf16", "byte"] = "fp32"
    ids: Literal["explicit", "derived"] = "explicit"
    key: int = 0
    quantum: int = 32
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    rounds: int = 1
    weighting: Literal["equal", "batches", "examples"] = "batches"
    grad_clip: float = 0.0
    server_step: Literal["none", "sgd", "momentum", "adam"] = "none"
    betas: tuple[float, float] = field(default=(0.9, 0.999))
    adam_eps: float = 1e-8
    down: Literal["exact", "byte"] = "exact"

    def __post_init__(self) -> None:
        _choice("method", self.method, METHODS)
        _choice("code", self.code, CODES)
        _choice("ids", self.ids, IDS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("weighting", self.weighting, WEIGHTINGS)
        _choice("server_step", self.server_step, STEPS)
        _choice("down", self.down, DOWNS)
        check_seed(self.key)
        if len(self.theta0) != 64:
            raise ArgumentError("theta0", self.theta0, "the 64 hex digits of covector.trees.digest(params)")
        for name, low, high in (("local_steps", 1, 1 << 20), ("rounds", 1, 1 << 31), ("quantum", 8, 56)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ArgumentError(name, value, f"a whole number from {low} to {high}")
        for name in ("lr", "eps", "adam_eps"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ArgumentError(name, getattr(self, name), "a positive finite number")
        if not 0.0 <= self.grad_clip < 3e38:
            raise ArgumentError("grad_clip", self.grad_clip, "0 (off) or a positive number below 3e38")
        # float32 on the wire: round here, so that a header equals what others read
        object.__setattr__(self, "grad_clip", struct.unpack("<f", struct.pack("<f", self.grad_clip))[0])
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ArgumentError("betas", self.betas, "two numbers in [0, 1)")
        self._check_composition()

    def _check_composition(self) -> None:
        if (self.method == "sketch") != (self.server_step != "none"):
            raise CompositionError(
                f"method={self.method!r} with server_step={self.server_step!r}: kseed sums its clients' steps and "
                "takes none of its own ('none'); sketch averages gradients and needs 'sgd', 'momentum' or 'adam'"
            )
        if self.method != "kseed" and isinstance(self.pool, SeedPool) != (self.method == "kseed-pro"):
            wanted = "a SketchPool" if self.method == "sketch" else "a SeedPool, whose directions can be preferred"
            raise CompositionError(f"method={self.method!r} with {self.pool!r}: it needs {wanted}")
        if self.method == "sketch" and self.ids != "derived":
            raise CompositionError("method='sketch' with ids='explicit': its steps are always derived")
        if self.ids == "explicit" and self.code != "fp32":
            raise CompositionError(f"ids='explicit' with code={self.code!r}: the faithful wire sends fp32 scalars")
        if self.method != "sketch" and self.code == "bf16":
            raise CompositionError(f"code='bf16' with method={self.method!r}: bf16 is for a sketch's coordinates")

    @classmethod
    def kseed(cls, params: Params, pool: Pool, lr: float, wire: str = "compact", **options: Any) -> RunHeader:
        """Header of a FedKSeed run on ``params``.

        Args:
            params: the base parameters.
            pool: the directions.
            lr: learning rate.
            wire: ``"faithful"`` (4-byte scalars with their ids, the accumulators down) or ``"compact"`` (derived
                ids, one byte a scalar, log or snapshot down).
            options: further fields; ``method="kseed-pro"`` prefers seeds of large scalars.

        >>> import torch
        >>> RunHeader.kseed({"w": torch.zeros(2)}, SeedPool(1, 8), lr=0.1).code
        'byte'
        """
        if wire not in ("faithful", "compact"):
            raise ArgumentError("wire", wire, "'faithful' or 'compact'")
        fields: dict[str, Any] = {"code": "fp32", "ids": "explicit"} if wire == "faithful" else {}
        fields = {"code": "byte", "ids": "derived", **fields, **options}
        return cls(trees.digest(params), pool, lr, **fields)

    @classmethod
    def sketch(
        cls, params: Params, pool: SketchPool, lr: float, server_step: str = "adam", **options: Any
    ) -> RunHeader:
        """Header of a sketch run on ``params``: gradients averaged in N numbers, a step by the server.

        >>> import torch
        >>> RunHeader.sketch({"w": torch.zeros(2)}, SketchPool(1, 8), lr=0.1).server_step
        'adam'
        """
        fields: dict[str, Any] = {
            "code": "byte",
            "down": "byte",
            "local_steps": 1,
            "server_step": server_step,
            **options,
        }
        return cls(trees.digest(params), pool, lr, method="sketch", ids="derived", **fields)

    @cached_property
    def id(self) -> bytes:
        """The eight bytes by which messages name the run."""
        return hashlib.sha256(self.to_bytes()).digest()[:8]

    def ledger(self) -> Ledger:
        """The empty state of the run."""
        return Ledger(self.pool, self.quantum)

    def check_base(self, params: Params) -> None:
        """Refuse parameters that are not the run's theta_0, naming both hashes."""
        mine = trees.digest(params)
        if mine != self.theta0:
            raise MismatchError(
                f"the run starts from parameters {self.theta0} but these are {mine}; load the run's base model"
            )

    def to_bytes(self) -> bytes:
        """The header as a frame of 128 bytes."""
        pool = self.pool
        kind, law = (1, _LAWS.index(pool.distribution)) if isinstance(pool, SeedPool) else (2, 0)
        payload = struct.pack(
            _LAYOUT, bytes.fromhex(self.theta0), METHODS.index(self.method), kind, law, check_seed(pool.key), pool.size,
            self.quantum, check_seed(self.key), self.eps, self.local_steps, CODES.index(self.code),
            IDS.index(self.ids), SCHEDULES.index(self.schedule), self.lr, self.rounds,
            WEIGHTINGS.index(self.weighting), self.grad_clip, STEPS.index(self.server_step), *self.betas,
            self.adam_eps, DOWNS.index(self.down),
        )  # fmt: skip
        return frame(MAGIC, PROTOCOL, payload)

    @classmethod
    def from_bytes(cls, data: bytes, largest: int = 1 << 20) -> RunHeader:
        """The header in ``data``; pools wider than ``largest`` are refused before anything is allocated.

        Raises:
            CorruptionError: truncated, changed, of an unknown version or with values out of range.
        """
        reader = Reader(unframe(data, MAGIC, PROTOCOL))
        (
            theta0, method, kind, law, pool_key, size, quantum, key, eps, steps, code, ids, schedule, lr, rounds,
            weighting, clip, server_step, beta1, beta2, adam_eps, down,
        ) = reader.unpack(_LAYOUT)  # fmt: skip
        reader.end()
        if size > largest:
            raise CorruptionError(f"a pool of {size}; at most {largest} is accepted here")
        try:
            pool: Pool = SketchPool(pool_key, size) if kind == 2 else SeedPool(pool_key, size, _LAWS[law])  # type: ignore[arg-type]
            if kind not in (1, 2):
                raise CorruptionError(f"unknown pool kind {kind}")
            return cls(
                theta0.hex(), pool, lr, METHODS[method], steps, eps, CODES[code], IDS[ids], key, quantum,  # type: ignore[arg-type]
                SCHEDULES[schedule], rounds, WEIGHTINGS[weighting], clip, STEPS[server_step], (beta1, beta2),  # type: ignore[arg-type]
                adam_eps, DOWNS[down],  # type: ignore[arg-type]
            )  # fmt: skip
        except (IndexError, ArgumentError, CompositionError) as error:
            raise CorruptionError(f"the run header is not valid: {error}") from error


def _choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if not value or value not in choices:
        raise ArgumentError(argument, value, "one of " + ", ".join(repr(choice) for choice in choices if choice))
