"""A preconditioner ``Q = (I + U V^T) diag(d)``, ``P = Q^T Q``, fitted to pairs (v, h) of vectors: PSGD's LRA.

With ``a = Qh`` and ``b = Q^{-T} v``::

    d <- d - lr/Ld (h * Ph - v * P^{-1} v) * d,         l = max|h * Ph| + max|v * P^{-1} v|
    U <- U - lr/Lu (a a^T - b b^T) V (I + V^T U),       l = |a| |V V^T a| + |b| |V V^T b|
    V <- V - lr/Lv (I + V U^T)(a a^T - b b^T) U,        l = |a| |U U^T a| + |b| |U U^T b|

d in every update, U in one and V in the next. Rank 0 leaves a diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from covector.optim.fit_noise import FitNoise

__all__ = ["LowRankFit"]

States = dict[str, Tensor]


class LowRankFit:
    """Updates and products; the states are the caller's: ``u, v [n, rank]``, ``d [n]``, and ``ld, lu, lv``.

    Args:
        rank: of ``U V^T``; 0 for a diagonal.
        smoothing: of the running smoothness.

    >>> fit = LowRankFit(rank=2)
    >>> {name: tuple(x.shape) for name, x in fit.begin(torch.zeros(5), 1.0, FitNoise(0)).items()}
    {'d': (5,), 'ld': (), 'u': (5, 2), 'lu': (), 'v': (5, 2), 'lv': ()}
    """

    def __init__(self, rank: int = 10, smoothing: float = 0.9) -> None:
        self.rank, self.smoothing = rank, smoothing

    def names(self) -> list[str]:
        """Names of the states."""
        return ["d", "ld", *(["u", "lu", "v", "lv"] if self.rank else [])]

    def begin(self, like: Tensor, scale: Tensor | float, noise: FitNoise) -> States:
        """States of a preconditioner whose Q is ``scale`` times the identity, and a little more of low rank."""
        found = {"d": torch.ones_like(like) * scale, "ld": like.new_zeros(())}
        if self.rank:
            for name in "uv":
                fresh = noise.normal((len(like), self.rank), like)
                found[name] = fresh * (0.1**0.5 / torch.linalg.vector_norm(fresh))
                found["l" + name] = like.new_zeros(())
        return {name: found[name] for name in self.names()}

    def apply(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``P x``."""
        x = states["d"] * x
        if self.rank:
            u, v = states["u"], states["v"]
            x = x + u @ (v.mT @ x)
            x = x + v @ (u.mT @ x)
        return states["d"] * x

    def apply_inverse(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``P^{-1} x``, by solves of the size of the rank."""
        return self._root_inverse(states, self._inverse_transpose(states, x))

    def update(
        self, states: Mapping[str, Tensor], v: Tensor | None, h: Tensor, lr: float, noise: FitNoise, t: int
    ) -> States:
        """The states after a pair ``(v, h)``, the t-th; v None to whiten h."""
        v = noise.normal(h.shape, h) if v is None else v
        found = self._rebalanced(states)
        d = found["d"]
        a, b = self._root(found, h), self._inverse_transpose(found, v)
        seen, expected = h * self._root_transpose(found, a), v * self._root_inverse(found, b)
        found["ld"], rate = self._rate(found["ld"], seen.abs().amax() + expected.abs().amax(), lr)
        found["d"] = d - rate * (seen - expected) * d
        if self.rank:
            self._move(found, a, b, lr, "u" if t % 2 else "v")
        return found

    def _move(self, found: States, a: Tensor, b: Tensor, lr: float, name: str) -> None:
        """Move U along with V held, or the other way round."""
        mine, other = (found["u"], found["v"]) if name == "u" else (found["v"], found["u"])
        of_a, of_b = other.mT @ a, other.mT @ b
        norm = torch.linalg.vector_norm
        size = norm(a) * norm(other @ of_a) + norm(b) * norm(other @ of_b)
        found["l" + name], rate = self._rate(found["l" + name], size, lr)
        if name == "u":
            # a^T V (I + V^T U) as a row of r numbers
            rows = [x + mine.mT @ (other @ x) for x in (of_a, of_b)]
            columns = [a, b]
        else:
            rows = [of_a, of_b]
            columns = [x + mine @ (other.mT @ x) for x in (a, b)]
        found[name] = mine - rate * (torch.outer(columns[0], rows[0]) - torch.outer(columns[1], rows[1]))

    def _rate(self, smooth: Tensor, size: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        smooth = torch.maximum(torch.lerp(size, smooth, self.smoothing), size)
        return smooth, lr / smooth.clamp(min=torch.finfo(size.dtype).tiny)

    def _rebalanced(self, states: Mapping[str, Tensor]) -> States:
        """U and V of one norm, turned a little such that ``U^T U`` and ``V^T V`` become alike; ``U V^T`` is kept."""
        found = dict(states)
        if not self.rank:
            return found
        u, v = found["u"], found["v"]
        norms = [torch.linalg.vector_norm(x) for x in (u, v)]
        ratio = (norms[0] / norms[1]).sqrt()
        u, v = u / ratio, v * ratio
        uu, vv = u.mT @ u, v.mT @ v
        e = 0.1 * (uu - vv) / (uu.trace() + vv.trace())
        half = e @ e / 2
        found["u"], found["v"] = u - u @ (e - half), v + v @ (e + half)
        return found

    def _root(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``Q x``."""
        x = states["d"] * x
        return x + states["u"] @ (states["v"].mT @ x) if self.rank else x

    def _root_transpose(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``Q^T x``."""
        return states["d"] * (x + states["v"] @ (states["u"].mT @ x) if self.rank else x)

    def _inverse_transpose(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``Q^{-T} x``."""
        x = x / states["d"]
        if not self.rank:
            return x
        u, v = states["u"], states["v"]
        found: Tensor = x - v @ torch.linalg.solve(self._small(states).mT, u.mT @ x)
        return found

    def _root_inverse(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``Q^{-1} x``."""
        if self.rank:
            x = x - states["u"] @ torch.linalg.solve(self._small(states), states["v"].mT @ x)
        return x / states["d"]

    def _small(self, states: Mapping[str, Tensor]) -> Tensor:
        """``I + V^T U``."""
        product = states["v"].mT @ states["u"]
        return product + torch.eye(self.rank, dtype=product.dtype, device=product.device)
