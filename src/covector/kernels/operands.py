"""What an operation of the kernels is: its operands, and the protocol that every implementation fulfills.

:mod:`covector.kernels.dispatch` takes plain arguments, checks them and makes these of them, once. An implementation
only does the arithmetic: it may rely on flat contiguous tensors that fit each other, on a known law, on a seed that
is a signed 64-bit integer, on 32-bit words in a :class:`Place` and on a shift below the size of its table.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Backend", "Place", "Terms"]


class Place(NamedTuple):
    """Where in the random fields a run of elements begins: three words of the counter and an index.

    Args:
        field: 32-bit word of the tensor's name.
        start: index of the first element in the tensor.
        stream: purpose, the third word of the counter.
        step: the fourth word.
    """

    field: int = 0
    start: int = 0
    stream: int = 0
    step: int = 0

    @property
    def counter(self) -> tuple[int, int, int]:
        """The words of the counter beside the block."""
        return self.field, self.stream, self.step

    def ahead(self, elements: int) -> Place:
        """The place that many elements further on."""
        return Place(self.field, self.start + elements, self.stream, self.step)


class Terms(NamedTuple):
    """A linear combination of fields: ``sum_k coefficients[k] * z(seeds[k])``.

    Args:
        seeds: int64 ``[K]``.
        coefficients: ``[K]``, float64 to be rounded to the working dtype, or int64 where the sum is exact; then
            ``z`` counts in the units of its law (:data:`covector.kernels.fields.UNIT_EXPONENT`).
        distribution: the law of the fields.
    """

    seeds: Tensor
    coefficients: Tensor
    distribution: str

    def fit_int32(self) -> bool:
        """Whether no partial sum of these integer terms can leave 32 bits."""
        largest = 1 if self.distribution == "rademacher" else 32
        # a sum of magnitudes, rounded in float64, so well below 2**31
        return float(self.coefficients.to(torch.float64).abs().sum()) * largest < 2**31 - 2**20


class Backend(Protocol):
    """An implementation of the operations; a module with these functions is one."""

    def supports(self, dtype: torch.dtype, /) -> bool:
        """Whether tensors of this storage are served; the definition serves the others."""
        ...

    def add_field_(self, out: Tensor, terms: Terms, place: Place) -> None:
        """``out += terms``, summed in the order of the seeds, then added once."""
        ...

    def materialize_seeded_(self, out: Tensor, base: Tensor, terms: Terms, exponent: int, place: Place) -> None:
        """``out = base + 2**-exponent * terms``, the sum exact in integers; ``out`` may be ``base``."""
        ...

    def materialize_sketch_(
        self, out: Tensor, base: Tensor, table: Tensor, seed: int, shift: int, place: Place
    ) -> None:
        """``out[i] = base[i] + D[i] * table[(start + i + shift) mod N]``; ``out`` may be ``base``."""
        ...

    def project_sketch_(self, totals: Tensor, gradient: Tensor, seed: int, shift: int, place: Place) -> None:
        """``totals[(start + i + shift) mod N] += D[i] * gradient[i]``, each total in the order of ``i``."""
        ...
