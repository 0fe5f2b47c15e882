"""Per-example gradients that are never formed: of a layer, its inputs and what backpropagation brings to its outputs.

A linear layer's gradient of example i is ``sum_t d_it x_it^T``, so that two of them have the inner product
``sum_ts <d_it, d_js> <x_it, x_js>``; for one position, ``<d_i, d_j> <x_i, x_j>`` (Goodfellow, arXiv:1510.01799).

Several cotangents of one batch, as a Gram matrix over all outputs needs, come as ``copies``: ``left`` has the examples
once for each of them, one cotangent after the other, ``right`` has them once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Explicit", "Factors", "Product", "Rows", "Tied"]

# numbers in one temporary of a Gram matrix
_BLOCK = 1 << 24


class Factors(Protocol):
    """A parameter's per-example gradients, in whatever form is cheap."""

    def squared_norms(self) -> Tensor:
        """``||g_i||^2``, ``[B]``."""

    def inner(self) -> Tensor:
        """``<g_i, g_j>``, ``[B, B]``, with copies ``[C B, C B]``."""

    def along(self, direction: Tensor) -> Tensor:
        """``<g_i, direction>``, ``[B]``; the direction has the parameter's shape."""

    def squares(self) -> Tensor:
        """``sum_i g_i * g_i``, of the parameter's size."""

    def __add__(self, other: Any) -> Any:
        """The gradients of a parameter that is used twice."""


@dataclass
class Product:
    """``g_i = sum_t left_it right_it^T``; left ``[C B, T, m]``, right ``[B, T, n]``.

    >>> Product(torch.ones(1, 2, 3), torch.ones(1, 2, 5)).squared_norms()
    tensor([60.])
    """

    left: Tensor
    right: Tensor

    def squared_norms(self) -> Tensor:
        (_, positions, m), n = self.left.shape, self.right.shape[2]
        if positions == 1:
            return self.left.square().sum((1, 2)) * self.right.square().sum((1, 2))
        if 2 * positions * positions < m * n:
            return ((self.left @ self.left.mT) * (self.right @ self.right.mT)).sum((1, 2))
        return self._written_out().square().sum((1, 2))

    def inner(self) -> Tensor:
        (size, positions, m), (once, _, n) = self.left.shape, self.right.shape
        copies = size // once
        if positions == 1:
            right = self.right[:, 0] @ self.right[:, 0].mT
            left = self.left[:, 0] @ self.left[:, 0].mT
            return (left.view(copies, once, copies, once).mul_(right[:, None, :])).view(size, size)
        if positions**2 * (m + n / copies**2) < m * n:
            flat = self.right.reshape(-1, n)
            return _pairs(self.left, flat @ flat.mT, once)
        found = self.left.new_zeros(size, size)
        for part in self._blocks(m, max(1, _BLOCK // (size * n))):
            own = (self.left[..., part].view(copies, once, positions, -1).mT @ self.right).view(size, -1)
            found.addmm_(own, own.mT)
        return found

    def along(self, direction: Tensor) -> Tensor:
        return ((self.left @ direction.reshape(self.left.shape[2], -1)) * self.right).sum((1, 2))

    def squares(self) -> Tensor:
        if self.left.shape[1] == 1:
            return self.left[:, 0].square().T @ self.right[:, 0].square()
        return self._written_out().square().sum(0)

    def _written_out(self) -> Tensor:
        return self.left.mT @ self.right

    @staticmethod
    def _blocks(size: int, step: int) -> Iterator[slice]:
        return (slice(start, start + step) for start in range(0, size, step))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Product):
            return other + self
        return Product(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 1))


@dataclass
class Rows:
    """``g_i`` has ``values_it`` added to row ``ids_it``; ids ``[B, T]``, values ``[C B, T, d]``.

    >>> Rows(torch.tensor([[0, 0]]), torch.ones(1, 2, 3), 7).squared_norms()
    tensor([12.])
    """

    ids: Tensor
    values: Tensor
    count: int

    def squared_norms(self) -> Tensor:
        same = self.ids[:, :, None] == self.ids[:, None, :]
        return ((self.values @ self.values.mT) * same).sum((1, 2))

    def inner(self) -> Tensor:
        flat = self.ids.flatten()
        return _pairs(self.values, (flat[:, None] == flat).to(self.values.dtype), len(self.ids))

    def along(self, direction: Tensor) -> Tensor:
        return (self.values * direction[self.ids]).sum((1, 2))

    def squares(self) -> Tensor:
        sums = self.values.new_zeros(self.count, self.values.shape[2])
        for ids, values in zip(self.ids, self.values, strict=True):
            touched, places = ids.unique(return_inverse=True)
            own = values.new_zeros(len(touched), values.shape[1]).index_add_(0, places, values)
            sums.index_add_(0, touched, own.square())
        return sums

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Rows):
            return Tied(self, other) if isinstance(other, Product) else other + self
        return Rows(torch.cat([self.ids, other.ids], 1), torch.cat([self.values, other.values], 1), self.count)


@dataclass
class Tied:
    """The sum of both, of a matrix that is looked up and multiplied by: an output tied to the embedding.

    >>> rows = Rows(torch.tensor([[0]]), torch.ones(1, 1, 2), 3)
    >>> Tied(rows, Product(torch.ones(1, 1, 3), torch.ones(1, 1, 2))).squared_norms()  # one row of twos, two of ones
    tensor([12.])
    """

    rows: Rows
    product: Product

    def squared_norms(self) -> Tensor:
        left, ids = self.product.left, self.rows.ids
        met = left.gather(2, ids[:, None, :].expand(-1, left.shape[1], -1))
        cross = (met * (self.product.right @ self.rows.values.mT)).sum((1, 2))
        return self.rows.squared_norms() + self.product.squared_norms() + 2 * cross

    def inner(self) -> Tensor:
        cross = self._cross()
        return self.rows.inner().add_(self.product.inner()).add_(cross).add_(cross.mT)

    def along(self, direction: Tensor) -> Tensor:
        return self.rows.along(direction) + self.product.along(direction)

    def squares(self) -> Tensor:
        sums = self.rows.values.new_zeros(self.rows.count, self.rows.values.shape[2])
        for ids, values, left, right in zip(
            self.rows.ids, self.rows.values, self.product.left, self.product.right, strict=True
        ):
            sums += (left.mT @ right).index_add_(0, ids, values).square()
        return sums

    def _cross(self) -> Tensor:
        """``<looked up_i, multiplied_j>``, two copies at a time."""
        once, seen = self.rows.ids.shape
        positions = self.product.left.shape[1]
        size, shape = len(self.product.left), (once, positions, once, seen)
        right = self.product.right.flatten(0, 1)
        found = right.new_empty(size // once, once, size // once, once)
        values = self.rows.values.view(size // once, once * seen, -1)
        for k, left in enumerate(self.product.left.view(size // once, once, positions, -1)):
            met = left[:, :, self.rows.ids.flatten()].view(shape)
            for c, own in enumerate(values):
                found[c, :, k, :] = (met * (right @ own.mT).view(shape)).sum((1, 3)).mT
        return found.view(size, size)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Rows):
            return Tied(self.rows + other, self.product)
        return Tied(self.rows, self.product + other)


@dataclass
class Explicit:
    """Gradients as they are, ``[C B, size]``: of biases, gains and whatever has no cheaper form.

    >>> Explicit(torch.ones(2, 3)).squared_norms()
    tensor([3., 3.])
    """

    values: Tensor

    def squared_norms(self) -> Tensor:
        return self.values.square().sum(1)

    def inner(self) -> Tensor:
        return self.values @ self.values.mT

    def along(self, direction: Tensor) -> Tensor:
        return self.values @ direction.flatten()

    def squares(self) -> Tensor:
        return self.values.square().sum(0)

    def __add__(self, other: Explicit) -> Explicit:
        return Explicit(self.values + other.values)


def _pairs(left: Tensor, right: Tensor, once: int) -> Tensor:
    """``sum_ts <left_it, left_js> right[it, js]``; left ``[C B, T, m]``, right ``[B T, B T]``; two copies at a time."""
    size, positions, _ = left.shape
    copies = left.reshape(size // once, once * positions, -1)
    found = left.new_empty(size, size)
    for c, mine in enumerate(copies):
        for k in range(c + 1):
            block = (mine @ copies[k].mT).mul_(right).view(once, positions, once, positions).sum((1, 3))
            found[c * once : (c + 1) * once, k * once : (k + 1) * once] = block
            found[k * once : (k + 1) * once, c * once : (c + 1) * once] = block.mT
    return found
