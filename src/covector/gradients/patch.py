"""Patch: a fine-tuned model as the hash of its base and a ledger; kilobytes instead of the parameters.

Frame ``CVPT``, version 1::

    32 bytes SHA-256 of the base, 32 bytes SHA-256 of the result (zeros: unknown), name of the base (u16 length,
    UTF-8), u32 length and UTF-8 JSON of the metadata (an object), the ledger's frame (without its clock)
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covector import trees
from covector.errors import ArgumentError, CorruptionError, MismatchError
from covector.gradients.framing import Reader, frame, text_bytes, unframe
from covector.gradients.ledger import Ledger
from covector.trees import Params

__all__ = ["Patch"]

MAGIC, VERSION = b"CVPT", 1


@dataclass(frozen=True)
class Patch:
    """The change from a base model to a fine-tuned one.

    Args:
        base: SHA-256 (hex) of the base parameters, :func:`covector.trees.digest`.
        ledger: the change.
        name: what the base is called, for people.
        result: SHA-256 of the patched parameters, empty if unknown.
        metadata: anything JSON can hold.

    >>> import torch
    >>> from covector import SketchPool
    >>> base = {"w": torch.zeros(4)}
    >>> ledger = Ledger(SketchPool(key=1, size=16))
    >>> ledger.add_([7], torch.tensor([ledger.units(0.5)]))
    >>> patch = Patch.make(base, ledger, name="zeros")
    >>> patch.apply(base)["w"].abs()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    >>> patch.apply({"w": torch.ones(4)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    covector.errors.MismatchError: the patch is for 'zeros' (...), these parameters are ...
    """

    base: str
    ledger: Ledger
    name: str = ""
    result: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.base) != 64 or len(self.result) not in (0, 64):
            raise ArgumentError("base, result", (self.base, self.result), "64 hex digits each, or '' for result")
        bare = self.ledger.copy()
        bare.clock = {}
        object.__setattr__(self, "ledger", bare)

    @classmethod
    def make(
        cls, base: Params, ledger: Ledger, name: str = "", metadata: Mapping[str, Any] | None = None, seal: bool = True
    ) -> Patch:
        """The patch of ``ledger`` on ``base``.

        Args:
            base: the base parameters.
            ledger: the change.
            name: what the base is called.
            metadata: anything JSON can hold.
            seal: also store the hash of the result, which takes one materialization.
        """
        result = trees.digest(ledger.materialize(base)) if seal else ""
        return cls(trees.digest(base), ledger, name, result, dict(metadata or {}))

    def apply(self, base: Params, out: Params | None = None) -> Params:
        """The patched parameters, bit for bit the same on every machine.

        Args:
            base: the base parameters, only read.
            out: written in place if given (may be ``base`` itself).

        Raises:
            MismatchError: ``base`` is another model, or the result is not the one the patch promises.
        """
        seen = trees.digest(base)
        if seen != self.base:
            raise MismatchError(f"the patch is for {self.name!r} ({self.base}), these parameters are {seen}")
        patched = self.ledger.materialize(base, out=out)
        if self.result and trees.digest(patched) != self.result:
            raise MismatchError(f"the result is {trees.digest(patched)}, the patch promises {self.result}")
        return patched

    def undo(self, patched: Params) -> Params:
        """The base again, from the patched parameters.

        Exact up to the one rounding that applying made: compare :func:`covector.trees.digest` with ``base`` to
        see whether all bits are back.

        Raises:
            MismatchError: ``patched`` is not the result of this patch.
        """
        seen = trees.digest(patched)
        if self.result and seen != self.result:
            raise MismatchError(f"the patch makes {self.result} from {self.name!r}, these parameters are {seen}")
        return self.inverse().ledger.materialize(patched)

    def inverse(self) -> Patch:
        """The patch with the opposite change, on the same base; merged with this one it leaves nothing.

        >>> import torch
        >>> from covector import SketchPool
        >>> ledger = Ledger(SketchPool(1, 16)); ledger.add_([3], torch.tensor([5]))
        >>> patch = Patch.make({"w": torch.zeros(4)}, ledger)
        >>> int(patch.merge(patch.inverse()).ledger.coefficients.abs().sum())
        0
        """
        opposite = self.ledger.copy()
        opposite.coefficients = -opposite.coefficients
        return Patch(self.base, opposite, self.name, "", dict(self.metadata))

    def merge(self, other: Patch) -> Patch:
        """Both changes on the common base; order does not matter.

        Raises:
            MismatchError: another base, pool or quantum.
        """
        if other.base != self.base:
            raise MismatchError(
                f"patches of different bases: {self.name!r} ({self.base}) and {other.name!r} ({other.base})"
            )
        both = self.ledger.copy()
        both.merge_(other.ledger)
        return Patch(self.base, both, self.name, "", {**self.metadata, **other.metadata})

    def info(self) -> dict[str, Any]:
        """What the patch is, as plain values.

        >>> from covector import SketchPool
        >>> Patch("00" * 32, Ledger(SketchPool(1, 16)), "tiny").info()["pool"]
        'SketchPool(key=1, size=16)'
        """
        values = self.ledger.values()
        return {
            "base": self.base,
            "name": self.name,
            "result": self.result,
            "pool": repr(self.ledger.pool),
            "quantum": self.ledger.quantum,
            "coefficients": int(self.ledger.coefficients.count_nonzero()),
            "norm": float(values.norm()),
            "bytes": len(self.to_bytes()),
            "metadata": dict(self.metadata),
        }

    def to_bytes(self) -> bytes:
        """The patch as a frame."""
        try:
            text = json.dumps(dict(self.metadata), sort_keys=True).encode()
        except (TypeError, ValueError) as error:
            raise ArgumentError("metadata", self.metadata, f"values that JSON can hold ({error})") from error
        head = bytes.fromhex(self.base) + bytes.fromhex(self.result or "00" * 32) + text_bytes(self.name)
        return frame(MAGIC, VERSION, head + struct.pack("<I", len(text)) + text + self.ledger.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Patch:
        """The patch in ``data``.

        Raises:
            CorruptionError: truncated, changed, of an unknown version or inconsistent.
        """
        payload = unframe(data, MAGIC, VERSION)
        reader = Reader(payload)
        base, result, name = bytes(reader.take(32)).hex(), bytes(reader.take(32)).hex(), reader.text()
        (length,) = reader.unpack("<I")
        try:
            metadata = json.loads(bytes(reader.take(length)))
        except ValueError as error:
            raise CorruptionError(f"the patch's metadata is not JSON: {error}") from error
        if not isinstance(metadata, dict):
            raise CorruptionError("the patch's metadata is no JSON object")
        ledger = Ledger.from_bytes(payload[32 + 32 + len(text_bytes(name)) + 4 + length :])
        return cls(base, ledger, name, "" if result == "00" * 32 else result, metadata)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the patch to a file, whole or not at all."""
        target = Path(path)
        temporary = target.with_name(target.name + ".part")
        temporary.write_bytes(self.to_bytes())
        os.replace(temporary, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Patch:
        """Read a patch from a file.

        Raises:
            CorruptionError: the file is damaged or no patch.
        """
        return cls.from_bytes(Path(path).read_bytes())
