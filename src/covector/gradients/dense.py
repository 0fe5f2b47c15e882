"""Dense: the gradient as tensors of the parameters' shapes, what backpropagation gives."""

from __future__ import annotations

import torch
from torch import Tensor

from covector import trees
from covector.errors import MismatchError
from covector.gradients.base import Gradient
from covector.trees import Params

__all__ = ["Dense"]


class Dense(Gradient):
    """A gradient written out.

    Args:
        params: one tensor a parameter, same names and shapes as the parameters.

    >>> g = Dense({"w": torch.tensor([3.0, 4.0])})
    >>> g.norm(), (2 * g).norm()
    (5.0, 10.0)
    """

    def __init__(self, params: Params) -> None:
        trees.check_dense_real(params)
        self.params = {name: tensor.detach() for name, tensor in params.items()}

    def add_slice_(self, out: Tensor, name: str, start: int = 0, scale: float = 1.0) -> None:
        if name not in self.params:
            raise MismatchError(f"the gradient has no tensor {name!r}; it has {list(self.params)[:5]}")
        source = self.params[name].reshape(-1)
        if start + out.numel() > source.numel():
            raise MismatchError(f"tensor {name!r} has {source.numel()} elements, asked for {start + out.numel()}")
        out.add_(source[start : start + out.numel()].to(out.device, out.dtype), alpha=scale)

    def dense(self, like: Params) -> Params:
        trees.check_same(self.params, like, ("gradient", "like"))
        return {name: t.to(like[name].device, like[name].dtype).clone() for name, t in self.params.items()}

    def scaled(self, factor: float) -> Dense:
        return Dense(trees.map_tensors(lambda t: t * factor, self.params))

    def plus(self, other: Dense) -> Dense:
        trees.check_same(self.params, other.params, ("left", "right"))
        return Dense({name: t + other.params[name] for name, t in self.params.items()})

    def isfinite(self) -> bool:
        return all(bool(torch.isfinite(t).all()) for t in self.params.values())

    def zeroed(self) -> Dense:
        return Dense(trees.zeros_like(self.params))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Dense)
            and self.params.keys() == other.params.keys()
            and all(torch.equal(t, other.params[name]) for name, t in self.params.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Dense({len(self.params)} tensors, {trees.numel(self.params):,} numbers)"
