"""LowRank: a gradient as ``U V^T`` for each matrix, with the other tensors in a carrier of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import CompositionError, MismatchError
from covector.gradients.base import Gradient

__all__ = ["LowRank"]

Factors = dict[str, tuple[Tensor, Tensor]]


class LowRank(Gradient):
    """``g[name] = U V^T`` for the tensors in ``factors``; the others are carried by ``rest``.

    A tensor of more than two dimensions counts as the matrix ``[shape[0], -1]``.

    Args:
        factors: for each name ``(U [m, r], V [n, r])``.
        rest: carrier of the tensors without factors (vectors, usually), or ``None`` if there are none.

    Raises:
        MismatchError: U and V of one tensor differ in rank.

    Source: Chen et al., "Enhancing zeroth-order fine-tuning for language models with low-rank structures"
    (LOZO), 2024.

    >>> g = LowRank({"w": (torch.ones(2, 1), torch.ones(3, 1))})
    >>> (g + g).dense({"w": torch.zeros(2, 3)})["w"]
    tensor([[2., 2., 2.],
            [2., 2., 2.]])
    """

    def __init__(self, factors: Factors, rest: Gradient | None = None) -> None:
        for name, (u, v) in factors.items():
            if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[1]:
                raise MismatchError(
                    f"factors of {name!r} have shapes {tuple(u.shape)} and {tuple(v.shape)}; expected [m, r] and [n, r]"
                )
        self.factors = {name: (u.detach(), v.detach()) for name, (u, v) in factors.items()}
        self.rest = rest

    def add_slice_(self, out: Tensor, name: str, start: int = 0, scale: float = 1.0) -> None:
        if name not in self.factors:
            if self.rest is None:
                raise MismatchError(f"the gradient has no tensor {name!r}; it has {list(self.factors)[:5]}")
            self.rest.add_slice_(out, name, start, scale)
            return
        u, v = (factor.to(out.device, out.dtype) for factor in self.factors[name])
        width = v.shape[0]
        first, last = start // width, (start + out.numel() - 1) // width + 1
        if last > u.shape[0]:
            raise MismatchError(f"tensor {name!r} has {u.shape[0] * width} elements, asked for {start + out.numel()}")
        rows = (u[first:last] @ v.T).reshape(-1)
        skip = start - first * width
        out.add_(rows[skip : skip + out.numel()], alpha=scale)

    def scaled(self, factor: float) -> LowRank:
        factors = {name: (u * factor, v) for name, (u, v) in self.factors.items()}
        return LowRank(factors, None if self.rest is None else self.rest * factor)

    def plus(self, other: LowRank) -> LowRank:
        if self.factors.keys() != other.factors.keys() or (self.rest is None) != (other.rest is None):
            raise CompositionError("low-rank gradients over different tensors do not add; write them out with .dense()")
        factors = {
            name: (torch.cat((u, other.factors[name][0]), 1), torch.cat((v, other.factors[name][1]), 1))
            for name, (u, v) in self.factors.items()
        }
        rest = None if self.rest is None or other.rest is None else self.rest + other.rest
        return LowRank(factors, rest)

    def isfinite(self) -> bool:
        finite = all(bool(torch.isfinite(t).all()) for pair in self.factors.values() for t in pair)
        return finite and (self.rest is None or self.rest.isfinite())

    def zeroed(self) -> LowRank:
        factors = {name: (torch.zeros_like(u), v) for name, (u, v) in self.factors.items()}
        return LowRank(factors, None if self.rest is None else self.rest.zeroed())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LowRank)
            and self.factors.keys() == other.factors.keys()
            and self.rest == other.rest
            and all(
                torch.equal(mine, theirs)
                for name, pair in self.factors.items()
                for mine, theirs in zip(pair, other.factors[name], strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        ranks = {u.shape[1] for u, _ in self.factors.values()}
        return f"LowRank({len(self.factors)} matrices, rank {max(ranks, default=0)})"
