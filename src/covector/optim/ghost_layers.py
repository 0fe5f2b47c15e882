"""Per-example gradients that are never formed: of a layer, its inputs and what backpropagation brings to its outputs.

A linear layer's gradient of example i is ``sum_t d_it x_it^T``, so that its squared norm is
``sum_ts <d_it, d_is> <x_it, x_is>``: for one position, ``||d_i||^2 ||x_i||^2`` (Goodfellow, arXiv:1510.01799).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LAYERS", "Explicit", "Factors", "Product", "Rows"]


class Factors(Protocol):
    """A parameter's per-example gradients, in whatever form is cheap."""

    def squared_norms(self) -> Tensor:
        """``||g_i||^2``, ``[B]``."""

    def along(self, direction: Tensor) -> Tensor:
        """``<g_i, direction>``, ``[B]``; the direction has the parameter's shape."""

    def squares(self) -> Tensor:
        """``sum_i g_i * g_i``, of the parameter's size."""

    def __add__(self, other: Any) -> Any:
        """The gradients of a parameter that is used twice."""


@dataclass
class Product:
    """``g_i = sum_t left_it right_it^T``; left ``[B, T, m]``, right ``[B, T, n]``.

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

    def along(self, direction: Tensor) -> Tensor:
        return ((self.left @ direction.reshape(self.left.shape[2], -1)) * self.right).sum((1, 2))

    def squares(self) -> Tensor:
        if self.left.shape[1] == 1:
            return self.left[:, 0].square().T @ self.right[:, 0].square()
        return self._written_out().square().sum(0)

    def _written_out(self) -> Tensor:
        return self.left.mT @ self.right

    def __add__(self, other: Product) -> Product:
        return Product(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 1))


@dataclass
class Rows:
    """``g_i`` has ``values_it`` added to row ``ids_it``; ids ``[B, T]``, values ``[B, T, d]``.

    >>> Rows(torch.tensor([[0, 0]]), torch.ones(1, 2, 3), 7).squared_norms()
    tensor([12.])
    """

    ids: Tensor
    values: Tensor
    count: int

    def squared_norms(self) -> Tensor:
        same = self.ids[:, :, None] == self.ids[:, None, :]
        return ((self.values @ self.values.mT) * same).sum((1, 2))

    def along(self, direction: Tensor) -> Tensor:
        return (self.values * direction[self.ids]).sum((1, 2))

    def squares(self) -> Tensor:
        sums = self.values.new_zeros(self.count, self.values.shape[2])
        for ids, values in zip(self.ids, self.values, strict=True):
            touched, places = ids.unique(return_inverse=True)
            own = values.new_zeros(len(touched), values.shape[1]).index_add_(0, places, values)
            sums.index_add_(0, touched, own.square())
        return sums

    def __add__(self, other: Rows) -> Rows:
        return Rows(torch.cat([self.ids, other.ids], 1), torch.cat([self.values, other.values], 1), self.count)


@dataclass
class Explicit:
    """Gradients as they are, ``[B, size]``: of biases and gains.

    >>> Explicit(torch.ones(2, 3)).squared_norms()
    tensor([3., 3.])
    """

    values: Tensor

    def squared_norms(self) -> Tensor:
        return self.values.square().sum(1)

    def along(self, direction: Tensor) -> Tensor:
        return self.values @ direction.flatten()

    def squares(self) -> Tensor:
        return self.values.square().sum(0)

    def __add__(self, other: Explicit) -> Explicit:
        return Explicit(self.values + other.values)


def _linear(layer: nn.Linear, x: Tensor, d: Tensor) -> dict[str, Factors]:
    size = len(x)
    d = d.reshape(size, -1, layer.out_features)
    return {"weight": Product(d, x.reshape(size, -1, layer.in_features)), "bias": Explicit(d.sum(1))}


def _convolution(layer: nn.Conv2d, x: Tensor, d: Tensor) -> dict[str, Factors]:
    assert not isinstance(layer.padding, str)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    d = d.flatten(2)
    return {"weight": Product(d.mT, patches.mT), "bias": Explicit(d.sum(2))}


def _embedding(layer: nn.Embedding, ids: Tensor, d: Tensor) -> dict[str, Factors]:
    size = len(ids)
    ids, d = ids.reshape(size, -1), d.reshape(size, -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        d = d * (ids != layer.padding_idx)[:, :, None]
    return {"weight": Rows(ids, d, layer.num_embeddings)}


def _layer_norm(layer: nn.LayerNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    size, width = len(x), layer.weight.numel()
    normalized = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    gains = (normalized * d).reshape(size, -1, width).sum(1)
    return {"weight": Explicit(gains), "bias": Explicit(d.reshape(size, -1, width).sum(1))}


# what a layer's inputs and the gradients of its outputs say about each of its parameters
LAYERS: dict[type[nn.Module], Callable[..., dict[str, Factors]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
}
