"""Gradient: a covector, whatever carries it. Sums and scalings stay in the carrier.

A carrier knows how to add any slice of any tensor (:meth:`Gradient.add_slice_`); adding to all parameters,
the dense form, norms and perturbed evaluations are built on that one operation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError, CompositionError
from covector.trees import Params

__all__ = ["Gradient"]


class Gradient(ABC):
    """A linear functional on parameter space, in some representation.

    Subclasses: :class:`Dense`, :class:`Seeded`, :class:`Sketch`, :class:`LowRank`.
    """

    @abstractmethod
    def add_slice_(self, out: Tensor, name: str, start: int = 0, scale: float = 1.0) -> None:
        """``out += scale * g[name].flatten()[start : start + out.numel()]``, in place.

        Args:
            out: flat contiguous floating tensor ``[n]``.
            name: the tensor's name.
            start: index of the first element in the flattened tensor.
            scale: factor.
        """

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The gradient times ``factor``, in the same carrier."""

    @abstractmethod
    def plus(self, other: Self) -> Self:
        """The sum with a gradient of the same carrier."""

    @abstractmethod
    def isfinite(self) -> bool:
        """Whether all the numbers carried are finite."""

    @abstractmethod
    def zeroed(self) -> Self:
        """A zero of the same carrier (scaling by zero would keep NaN)."""

    @torch.no_grad()
    def add_to_(self, params: Params, scale: float = 1.0) -> None:
        """``params += scale * g`` in place: one pass over memory, no dense copy of ``g``.

        Args:
            params: the parameters ``g`` belongs to.
            scale: factor, for example ``-lr``.

        >>> from covector.gradients import Seeded
        >>> params = {"w": torch.zeros(3)}
        >>> Seeded([1], [0.5]).add_to_(params, scale=2.0)
        >>> params["w"].abs()
        tensor([1., 1., 1.])
        """
        for name, tensor in params.items():
            if tensor.numel() == 0:
                continue
            target = tensor.detach()
            flat = (target if target.is_contiguous() else target.contiguous()).view(-1)
            self.add_slice_(flat, name, 0, scale)
            if not target.is_contiguous():
                target.copy_(flat.view(target.shape))

    def dense(self, like: Params) -> Params:
        """The gradient written out: tensors with the names, shapes and dtypes of ``like``.

        >>> from covector.gradients import Seeded
        >>> Seeded([1], [0.5]).dense({"w": torch.zeros(2, 2)})["w"].shape
        torch.Size([2, 2])
        """
        out = {name: torch.zeros(t.shape, dtype=t.dtype, device=t.device) for name, t in like.items()}
        self.add_to_(out)
        return out

    def dot(self, other: Gradient | Params, like: Params | None = None) -> float:
        """Inner product with another gradient or with Params.

        Args:
            other: a gradient of any carrier, or Params.
            like: the parameters both belong to; may be left out when one of the two is dense.

        Raises:
            ArgumentError: neither operand says what the tensors are, and ``like`` is missing.

        >>> from covector.gradients import Dense
        >>> Dense({"w": torch.tensor([3.0, 4.0])}).dot({"w": torch.ones(2)})
        7.0
        """
        other_params = other if isinstance(other, dict) else getattr(other, "params", None)
        mine = getattr(self, "params", None)
        shapes = like if like is not None else (mine if mine is not None else other_params)
        if shapes is None:
            raise ArgumentError("like", None, "the parameters, because seeds and sketches alone do not say what is d")
        left = mine if mine is not None else self.dense(_wide(shapes))
        if other_params is not None:
            return trees.dot(left, other_params)
        assert isinstance(other, Gradient)
        return trees.dot(left, other.dense(_wide(shapes)))

    def norm(self, like: Params | None = None) -> float:
        """Euclidean norm; ``like`` as in :meth:`dot`.

        >>> from covector.gradients import Seeded
        >>> Seeded([1], [0.5]).norm(like={"w": torch.zeros(4)})
        1.0
        """
        return float(self.dot(self, like) ** 0.5)

    def to_bytes(self, codec: str = "fp32") -> bytes:
        """Versioned, checksummed bytes; see :mod:`covector.gradients.codec` for the layout.

        Args:
            codec: how numbers are stored: ``"fp32"`` (4 bytes), ``"bf16"`` (2 bytes) or ``"byte"`` (1 byte,
                unbiased rounding on a logarithmic grid).

        >>> from covector.gradients import Seeded
        >>> g = Seeded([1, 2], [0.5, -1.0]); Gradient.from_bytes(g.to_bytes()) == g
        True
        """
        from covector.gradients import codec as codecs

        return codecs.encode(self, codec)

    @staticmethod
    def from_bytes(data: bytes) -> Gradient:
        """The gradient in ``data``.

        Raises:
            CorruptionError: the bytes are truncated, changed or of an unknown version.
        """
        from covector.gradients import codec as codecs

        return codecs.decode(data)

    @property
    def nbytes(self) -> int:
        """Size of :meth:`to_bytes` at full precision."""
        return len(self.to_bytes())

    def __add__(self, other: Gradient) -> Self:
        if type(self) is not type(other):
            raise CompositionError(
                f"cannot add {type(other).__name__} to {type(self).__name__}: carriers differ; "
                "write both out with .dense(params) first"
            )
        return self.plus(other)

    def __sub__(self, other: Gradient) -> Self:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Self:
        return self.scaled(float(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Self:
        return self.scaled(1.0 / float(divisor))

    def __neg__(self) -> Self:
        return self.scaled(-1.0)


def _wide(like: Params) -> Params:
    return {name: torch.empty(t.shape, dtype=torch.float64, device=t.device) for name, t in like.items()}
