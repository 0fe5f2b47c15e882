"""A preconditioner that is a Kronecker product of one factor for each axis, fitted to pairs (v, h).

``P = P_1 x ... x P_k`` acts on tensors ``[batch, d_1, ..., d_k]``; one axis makes it a dense or a diagonal matrix. With
``X_i`` the tensor whose axis i comes first, all others as one::

    A_i = (Ph)_i (Ph)_i^T,   B_i = V_i V_i^T,   L_i <- max(s L_i + (1 - s) l, l),  l = ||A_i + B_i||
    Q_i <- Q_i moved by the geometry along A_i - B_i, at the rate lr / L_i

To whiten, v is standard normal and independent of h, so that ``N / d_i`` times the identity takes the place of B_i: its
mean, without its noise. All axes see the same Ph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from covector.optim.fit_axes import act, gram, solve
from covector.optim.fit_geometry import Geometry
from covector.optim.fit_noise import FitNoise
from covector.optim.norm_bound import norm_bound

__all__ = ["KroneckerFit"]

PROBES = 32
States = dict[str, Tensor]


class KroneckerFit:
    """Updates and products; the factors are the caller's, ``q0, q1, ...``, with their smoothness ``l0, l1, ...``.

    Args:
        geometry: how factors move.
        max_size: an axis longer than this has a diagonal factor.
        max_skew: so has one of which ``d^2 > max_skew N``, N the number of elements; ``inf`` makes all dense.
        smoothing: s of the running smoothness.

    >>> from covector.optim.fit_geometry import geometry_named
    >>> fit = KroneckerFit(geometry_named("EQ"))
    >>> {name: tuple(q.shape) for name, q in fit.begin(torch.zeros(1, 2, 8), 1.0).items()}
    {'q0': (1, 2, 2), 'l0': (1,), 'q1': (1, 8), 'l1': (1,)}
    """

    def __init__(
        self, geometry: Geometry, max_size: float = math.inf, max_skew: float = 1.0, smoothing: float = 0.9
    ) -> None:
        self.geometry, self.max_size, self.max_skew, self.smoothing = geometry, max_size, max_skew, smoothing

    def names(self, axes: int) -> list[str]:
        """Names of the states of a tensor of so many axes."""
        return [f"{kind}{axis}" for axis in range(axes) for kind in "ql"]

    def is_diagonal(self, shape: Sequence[int], axis: int) -> bool:
        """Whether the factor of an axis is diagonal; ``shape`` without the batch."""
        size, count = shape[axis], math.prod(shape)
        return size <= 1 or size > self.max_size or size * size > self.max_skew * count

    def begin(self, like: Tensor, scale: Tensor | float) -> States:
        """States of a preconditioner whose Q is ``scale`` times the identity."""
        batch, shape, found = len(like), tuple(like.shape[1:]), {}
        power = (1.0 if self.geometry.squared else 2.0) / len(shape)
        for axis, size in enumerate(shape):
            own = torch.as_tensor(scale, dtype=like.dtype, device=like.device) ** power
            if self.is_diagonal(shape, axis):
                found[f"q{axis}"] = like.new_ones(batch, size) * own
            else:
                found[f"q{axis}"] = torch.eye(size, dtype=like.dtype, device=like.device).repeat(batch, 1, 1) * own
            found[f"l{axis}"] = like.new_zeros(batch)
        return found

    def apply(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``P x``."""
        for axis in range(x.ndim - 1):
            q = states[f"q{axis}"]
            if not self.geometry.squared:
                x = act(q, x, axis)
            elif q.ndim == 2 or q.shape[-1] ** 2 < x[0].numel():
                # a matrix with fewer columns than it would be applied to is squared first
                x = act(q.square() if q.ndim == 2 else q.mT @ q, x, axis)
            else:
                x = act(q, act(q, x, axis), axis, transpose=True)
        return x

    def apply_inverse(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``P^{-1} x``, by solves."""
        for axis in range(x.ndim - 1):
            q, triangular = states[f"q{axis}"], self.geometry.triangular
            if self.geometry.squared:
                x = solve(q, x, axis, transpose=True, triangular=triangular)
            x = solve(q, x, axis, triangular=triangular)
        return x

    def update(self, states: Mapping[str, Tensor], v: Tensor | None, h: Tensor, lr: float, noise: FitNoise) -> States:
        """The states after a pair ``(v, h)``; v None to whiten h."""
        geometry, shape, found = self.geometry, tuple(h.shape[1:]), {}
        first, second = self._seen(states, v, h, noise)
        for axis, size in enumerate(shape):
            q = states[f"q{axis}"]
            diagonal = q.ndim == 2
            a = gram(first, axis, diagonal)
            b: Tensor | float = math.prod(shape) / size if second is None else gram(second, axis, diagonal)
            if geometry.conjugated:
                a, b = _conjugate(q, a), _conjugate(q, b)
            probes = noise.normal((min(PROBES, size), size), q) if not diagonal else q
            size_now = _size(a, b, probes, diagonal, single=len(shape) == 1)
            smooth = torch.maximum(torch.lerp(size_now, states[f"l{axis}"], self.smoothing), size_now)
            rate = lr / smooth.clamp(min=torch.finfo(q.dtype).tiny)
            e = _difference(a, b, diagonal)
            if diagonal:
                found[f"q{axis}"] = geometry.diagonal(q, e, rate[:, None])
            else:
                found[f"q{axis}"] = geometry.move(q, e, rate[:, None, None], probes)
            found[f"l{axis}"] = smooth
        return found

    def balance(self, states: Mapping[str, Tensor]) -> States:
        """The same P, with factors whose largest entries are equal."""
        found = dict(states)
        names = [name for name in states if name[0] == "q"]
        largest = [states[name].flatten(1).abs().amax(1) for name in names]
        mean = torch.stack(largest).log().mean(0).exp()
        for name, own in zip(names, largest, strict=True):
            ratio = mean / own
            found[name] = states[name] * ratio.view(-1, *[1] * (states[name].ndim - 1))
        return found

    def _seen(
        self, states: Mapping[str, Tensor], v: Tensor | None, h: Tensor, noise: FitNoise
    ) -> tuple[Tensor, Tensor | None]:
        """The two vectors whose outer products A and B are; no second one where its mean is known."""
        if not self.geometry.inverse:
            return self.apply(states, h), v
        second = noise.normal(h.shape, h) if v is None else v
        for axis in range(h.ndim - 1):
            q = states[f"q{axis}"]
            h = act(q, h, axis)
            second = solve(q, second, axis, transpose=True, triangular=self.geometry.triangular)
        return h, second


def _conjugate(q: Tensor, x: Tensor | float) -> Tensor:
    """``Q X Q^T``."""
    if q.ndim == 2:
        return q.square() * x
    return q @ x @ q.mT if isinstance(x, Tensor) else x * (q @ q.mT)


def _size(a: Tensor, b: Tensor | float, probes: Tensor, diagonal: bool, single: bool) -> Tensor:
    """``||A + B||`` of each matrix; of one axis A and B are of rank one, and their traces bound it."""
    if diagonal:
        return (a + b).amax(-1)
    if single:
        return _trace(a) + (_trace(b) if isinstance(b, Tensor) else b)
    return _bound_of_sum(a, b, probes)


def _bound_of_sum(a: Tensor, b: Tensor | float, probes: Tensor) -> Tensor:
    """The bound of ``||A + B||``, where B may be a multiple of the identity."""
    return norm_bound(a + b, probes) if isinstance(b, Tensor) else norm_bound(a, probes) + b


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)


def _difference(a: Tensor, b: Tensor | float, diagonal: bool) -> Tensor:
    if isinstance(b, Tensor) or diagonal:
        return a - b
    e = a.clone()
    e.diagonal(dim1=-2, dim2=-1).sub_(b)
    return e
