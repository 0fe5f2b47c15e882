"""Slot 4 of PSGD: directions preconditioned by what was fitted to the gradients, or to Hessian products.

Kronecker products are fitted to each tensor by itself, equal shapes as one batch; dense, low-rank and diagonal
preconditioners to all tensors of a param group as one vector. States lie with their parameters: factors, or the rows
that belong to a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from covector.optim.batched import read_batch, write_batch
from covector.optim.diagonals import covectors, products
from covector.optim.fit_kronecker import KroneckerFit
from covector.optim.fit_low_rank import LowRankFit
from covector.optim.fit_noise import FitNoise
from covector.optim.hessian_fitter import blurred
from covector.optim.slots import Bucket
from covector.optim.update_schedule import Share, share_at

__all__ = ["PSGDStep", "joined_shape"]

# a direction, and the pair it is fitted to: v (None to whiten) and h
Triple = tuple[Tensor, Tensor | None, Tensor]


def joined_shape(shape: Sequence[int], limit: int = 0) -> tuple[int, ...]:
    """A shape without axes of one element, neighbors joined where their product is at most ``limit``.

    >>> joined_shape((64, 3, 3, 3), 64), joined_shape((5, 1)), joined_shape(())
    ((64, 27), (5,), (1,))
    """
    joined: list[int] = []
    for size in shape:
        if size == 1:
            continue
        if joined and joined[-1] * size <= limit:
            joined[-1] *= size
        else:
            joined.append(size)
    return tuple(joined) or (1,)


@dataclass(frozen=True)
class PSGDStep:
    """Map of PSGD, and for Newton's pairs also a scale rule, which asks for products with the Hessian.

    Args:
        fit: the mechanism, from :func:`~covector.optim.hessian_fitter.make_fit`.
        whole: the tensors of a group are one vector.
        newton: fit to ``(v, Hv)``; otherwise to gradients.
        of_momentum: whiten what the rule makes of the gradients, not the gradients.
        lr: of the fit.
        share: of the steps that fit.
        scale: where Q starts; None: by the first pair.
        damping: noise added to h.
        clip: bounds of the root mean square and of the entries of a whitened tensor.
        clip_norm: bound of the norm of a group's direction with Newton's pairs.
        balance_every: steps from one balancing to the next.
        merge: see :func:`joined_shape`.
        seed: of what is drawn.
    """

    fit: KroneckerFit | LowRankFit
    whole: bool
    newton: bool
    of_momentum: bool
    lr: float
    share: Share
    scale: float | None
    damping: float
    clip: tuple[float, float]
    clip_norm: float
    balance_every: int
    merge: int
    seed: int

    needs_directions = False

    @property
    def needs_closure(self) -> bool:
        """Newton's pairs take products with the Hessian."""
        return self.newton

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Draw a direction for the whole model and take the Hessian's product with it, where one is due."""
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        due = [self._due(bucket) for bucket in mine]
        if not any(due):
            return
        noise = FitNoise(self.seed, "pairs", *[int(bucket.t) for bucket in mine])
        drawn = [[noise.normal(g.shape, g) for g in covectors(bucket)] for bucket in mine]
        for bucket, vs, hs in zip(mine, drawn, products(mine, drawn), strict=True):
            bucket.scratch["pairs"] = list(zip(vs, hs, strict=True))

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """1 for each tensor."""
        return [1.0] * len(bucket.params)

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Directions times P, after P has seen this step's pair."""
        due = bucket.scratch["due"] if self.newton else self._due(bucket)
        if self.newton and due:
            pairs: list[tuple[Tensor | None, Tensor]] = bucket.scratch["pairs"]
        else:
            pairs = [(None, h) for h in (directions if self.of_momentum else grads)]
        triples = [(d, v, h) for d, (v, h) in zip(directions, pairs, strict=True)]
        out = self._whole(bucket, triples, due) if self.whole else self._each(bucket, triples, due)
        return self._clipped(out) if self.newton else out

    def _due(self, bucket: Bucket) -> bool:
        """Whether the share of steps so far has passed another whole number."""
        share = share_at(self.share, int(bucket.t))
        before = bucket.states[0].get("fits_due", 0.0)
        after = before + share if share < 1.0 else 1.0
        due = after >= 1.0 - 1e-9 or int(bucket.t) == 1
        for state in bucket.states:
            state["fits_due"] = max(after - 1.0, 0.0) if due else after
        bucket.scratch["due"] = due
        return due

    def _each(self, bucket: Bucket, triples: list[Triple], due: bool) -> list[Tensor]:
        """A Kronecker product for each tensor."""
        fit = self.fit
        assert isinstance(fit, KroneckerFit)
        places: dict[tuple[int, ...], list[int]] = {}
        for i, (direction, _, _) in enumerate(triples):
            places.setdefault(joined_shape(direction.shape, self.merge), []).append(i)
        scale = self._scale(bucket, triples) if any("q0" not in state for state in bucket.states) else 1.0
        out = [direction for direction, _, _ in triples]
        for shape, some in places.items():
            states, names = [bucket.states[i] for i in some], fit.names(len(shape))
            direction, v, h = _parts([triples[i] for i in some], partial(_stack, shape))
            if "q0" not in states[0]:
                _keep(states, fit.begin(direction, scale))
            found = {name: read_batch(states, name) for name in names}
            if due:
                noise = FitNoise(self.seed, int(bucket.t), str(shape))
                found = fit.update(found, v, blurred(h, self.damping, noise), self.lr, noise)
                if fit.geometry.conjugated or int(bucket.t) % self.balance_every == 0:
                    found = fit.balance(found)
                _keep(states, found)
            moved = fit.apply(found, direction)
            if not self.newton:
                moved = clip_whitened(moved, *self.clip)
            for i, value in zip(some, moved.unbind(0), strict=True):
                out[i] = value.reshape(out[i].shape)
        return out

    def _whole(self, bucket: Bucket, triples: list[Triple], due: bool) -> list[Tensor]:
        """One preconditioner for all tensors as a vector."""
        sizes = [direction.numel() for direction, _, _ in triples]
        direction, v, h = _parts(triples, _concatenate)
        noise = FitNoise(self.seed, int(bucket.t), "whole")
        found = self._read_rows(bucket.states, sizes)
        if found is None:
            found = self._begin_whole(direction, self._scale(bucket, triples), noise)
            due = True
        if due:
            h = blurred(h, self.damping, noise)
            if isinstance(self.fit, LowRankFit):
                found = self.fit.update(found, v, h, self.lr, noise, int(bucket.t))
            else:
                found = self.fit.update(found, None if v is None else v[None], h[None], self.lr, noise)
            self._keep_rows(bucket.states, found, sizes)
        if isinstance(self.fit, LowRankFit):
            moved = self.fit.apply(found, direction)
        else:
            moved = self.fit.apply(found, direction[None])[0]
        if not self.newton:
            moved = clip_whitened(moved[None], *self.clip)[0]
        return [part.view(d.shape) for part, (d, _, _) in zip(moved.split(sizes), triples, strict=True)]

    def _begin_whole(self, like: Tensor, scale: float, noise: FitNoise) -> dict[str, Tensor]:
        if isinstance(self.fit, LowRankFit):
            return self.fit.begin(like, scale, noise)
        return self.fit.begin(like[None], scale)

    def _read_rows(self, states: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, Tensor] | None:
        """The rows of all tensors together; None where there are none, or other tensors had stepped with these."""
        names = self.fit.names() if isinstance(self.fit, LowRankFit) else self.fit.names(1)
        if any(name not in state for state in states for name in names):
            return None
        found = {n: states[0][n] if n[0] == "l" else torch.cat([state[n] for state in states]) for n in names}
        if isinstance(self.fit, LowRankFit):
            return found
        if found["q0"].shape[-1] != sum(sizes):
            return None
        return {"q0": found["q0"][None], "l0": found["l0"]}

    def _keep_rows(self, states: Sequence[dict[str, Any]], found: dict[str, Tensor], sizes: Sequence[int]) -> None:
        for name, value in found.items():
            rows = value[0] if name == "q0" else value
            parts = [value] * len(states) if name[0] == "l" else rows.split(list(sizes))
            for state, part in zip(states, parts, strict=True):
                state[name] = part.clone()

    def _scale(self, bucket: Bucket, triples: list[Triple]) -> float:
        """``(max over tensors of mean h^4 + damping^4)^(-1/8)``; v has mean square 1."""
        if self.scale is not None:
            return self.scale
        fourth: Sequence[Tensor] = torch._foreach_norm([h.double() for _, _, h in triples if h.numel()], 4)
        means = [n**4 / h.numel() for n, (_, _, h) in zip(fourth, [t for t in triples if t[2].numel()], strict=True)]
        largest = float(torch.stack(means).max()) if means else 0.0
        return float((largest + max(self.damping, 1e-9) ** 4) ** -0.125)

    def _clipped(self, out: list[Tensor]) -> list[Tensor]:
        if self.clip_norm == math.inf:
            return out
        norms: Sequence[Tensor] = torch._foreach_norm(out, 2)
        factor = (self.clip_norm / torch.stack(list(norms)).square().sum().sqrt()).clamp(max=1.0)
        return [x * factor for x in out]


def clip_whitened(x: Tensor, mean: float, largest: float) -> Tensor:
    """Each tensor ``[batch, ...]`` scaled to a root mean square of at most ``mean``, then its entries clipped.

    >>> clip_whitened(torch.tensor([[0.0, 0.0, 0.0, 8.0]]), 2.0, 3.0)
    tensor([[0., 0., 0., 3.]])
    """
    size = x.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
    factor = (mean / size).clamp(max=1.0).view(-1, *[1] * (x.ndim - 1))
    return (x * factor).clamp_(-largest, largest)


def _keep(states: Sequence[dict[str, Any]], found: dict[str, Tensor]) -> None:
    for name, value in found.items():
        write_batch(states, name, value)


def _parts(triples: Sequence[Triple], join: Callable[[Sequence[Tensor]], Tensor]) -> Triple:
    """Directions, vs and hs joined; no v where there is none."""
    vs = [v for _, v, _ in triples if v is not None]
    return join([d for d, _, _ in triples]), join(vs) if vs else None, join([h for _, _, h in triples])


def _stack(shape: tuple[int, ...], tensors: Sequence[Tensor]) -> Tensor:
    """``[batch, *shape]``."""
    if len(tensors) == 1:
        return tensors[0].reshape(1, *shape)
    return torch.stack([t.reshape(shape) for t in tensors])


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
