"""A parameter that knows the manifold of its points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.optim.manifolds.base import Manifold

__all__ = ["ManifoldParameter"]


class ManifoldParameter(nn.Parameter):
    """A parameter whose last dimensions are points of a manifold; the dimensions before count points.

    ``ManifoldParameter(data, manifold, requires_grad=True)``: ``data`` are the points, brought to the manifold by
    projection, ``manifold`` is where they live, ``requires_grad`` as for ``nn.Parameter``.

    Raises:
        ArgumentError: fewer dimensions than a point has.

    >>> from covector.optim.manifolds import Sphere
    >>> table = nn.Embedding(3, 2)
    >>> table.weight = ManifoldParameter(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]]), Sphere())
    >>> table(torch.tensor([0, 2])), table.weight.manifold
    (tensor([[ 0.6000,  0.8000],
            [ 0.0000, -1.0000]], grad_fn=<EmbeddingBackward0>), Sphere())
    """

    manifold: Manifold

    def __new__(cls, data: Tensor, manifold: Manifold, requires_grad: bool = True) -> ManifoldParameter:
        if data.ndim < manifold.point_dims:
            raise ArgumentError(
                "data", tuple(data.shape), f"points of {manifold!r}, {manifold.point_dims} dimension(s)"
            )
        return cls._of(manifold.project(data.detach()), manifold, requires_grad)

    @classmethod
    def _of(cls, data: Tensor, manifold: Manifold, requires_grad: bool) -> ManifoldParameter:
        made: ManifoldParameter = Tensor._make_subclass(cls, data, requires_grad)
        made.manifold = manifold
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> ManifoldParameter:
        if id(self) not in memo:
            data = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = self._of(data, self.manifold, self.requires_grad)
        return memo[id(self)]  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self)._of, (self.data, self.manifold, self.requires_grad)
