"""All tensors of a model as one vector: equations on it read as written, and run as a few ``foreach`` calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.optim.advance import state_dtype

__all__ = ["Factor", "Vector"]

# a number for all tensors, a number on their device, or a number for each tensor
Factor = float | Tensor | Sequence[float]


class Vector:
    """A list of tensors with the arithmetic of one vector. Norms and products stay on the device, as 0-d tensors.

    Args:
        tensors: of real floating dtypes; dtypes and devices may differ.

    >>> v = Vector([torch.tensor([3.0]), torch.tensor([[4.0]])])
    >>> v.norm(), (2.0 * v / v.norm()).tensors[0]
    (tensor(5.), tensor([1.2000]))
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def __add__(self, other: Vector) -> Vector:
        return Vector(torch._foreach_add(self.tensors, other.tensors))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(torch._foreach_sub(self.tensors, other.tensors))

    def __mul__(self, other: Factor | Vector) -> Vector:
        if isinstance(other, Vector):
            return Vector(torch._foreach_mul(self.tensors, other.tensors))
        if isinstance(other, Tensor) and other.device.type != "cpu" and len({t.device for t in self.tensors}) > 1:
            return Vector([t * other.to(t.device) for t in self.tensors])  # foreach wants a number of the same device
        return Vector(torch._foreach_mul(self.tensors, other))

    __rmul__ = __mul__

    def __truediv__(self, other: float | Tensor) -> Vector:
        return self * (1.0 / other)

    def __abs__(self) -> Vector:
        return Vector(torch._foreach_abs(self.tensors))

    def __neg__(self) -> Vector:
        return Vector(torch._foreach_neg(self.tensors))

    def shift(self, amount: float) -> Vector:
        """Each element plus a number.

        >>> Vector([torch.zeros(2)]).shift(0.5).tensors
        [tensor([0.5000, 0.5000])]
        """
        return Vector(torch._foreach_add(self.tensors, amount))

    def norm(self) -> Tensor:
        """Euclidean norm over all tensors together, 0-d, in float32 or above.

        >>> Vector([torch.ones(4, dtype=torch.bfloat16)]).norm()
        tensor(2.)
        """
        kind = self._precision()
        norms = torch._foreach_norm(self.tensors, 2, dtype=kind)
        device = norms[0].device
        total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(device) for n in norms]))
        return total

    def dot(self, other: Vector) -> Tensor:
        """Inner product over all tensors together, 0-d, in float32 or above.

        >>> Vector([torch.ones(2)]).dot(Vector([torch.ones(2)]))
        tensor(2.)
        """
        kind = self._precision()
        products = torch._foreach_mul(self.tensors, other.tensors)
        device = products[0].device
        return torch.stack([p.sum(dtype=kind).to(device) for p in products]).sum()

    def _precision(self) -> torch.dtype:
        return torch.float64 if any(state_dtype(t.dtype) == torch.float64 for t in self.tensors) else torch.float32
