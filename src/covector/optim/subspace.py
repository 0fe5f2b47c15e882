"""The basis slot of low-memory optimizers: moments of the gradient within a subspace that is renewed now and then.

For a gradient ``G [m, n]`` with ``m <= n`` (else its transpose) and an orthonormal basis ``S [m, r]``, the moments
see ``g = S^T G [r, n]``, and their direction ``o`` becomes ``S o``. Every so many steps S is renewed, and

* **transport** (AO) re-expresses the moments in the new basis, ``C = S_new^T S_old``;
* **recovery** (RS) adds what lies outside the subspace, ``phi (G - S g)``, with a factor for each of the n columns,
  ``phi = ||o_j|| / ||g_j||``: plain gradient descent at the step size that the moments found inside.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.optim.grassmann import leading, random_point, track, walk
from covector.optim.slots import Bucket
from covector.random import Stream, check_seed, draw

__all__ = ["GradientSubspace", "Renewal", "transport"]

Renewal = Literal["svd", "walk", "jump", "track"]


def transport(change: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square of a gradient's coordinates after a change of basis; exact for independent coordinates.

    ``C m`` and ``|C.^2 (v - m^2) + (C m)^2|``: variances mix with the squares of C.

    Args:
        change: ``C = S_new^T S_old``, ``[new, old]``.
        mean: bias-corrected first moment ``[old, n]``.
        square: bias-corrected second moment ``[old, n]``.

    Returns:
        The two in the new basis.

    Source: Robert et al., "LDAdam", 2024, the projection-aware update of the states.

    >>> swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> transport(swap, torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [9.0]]))
    (tensor([[2.],
            [1.]]), tensor([[9.],
            [5.]]))
    """
    moved = change @ mean
    return moved, (change.square() @ (square - mean.square()) + moved.square()).abs()


class GradientSubspace:
    """A basis for slot 3: an r-dimensional subspace for each matrix, renewed every ``interval`` steps.

    Not to be confused with :class:`covector.gradients.Subspace`, which ties all parameters to the coordinates of
    one pool; here each matrix has a subspace of its own, which its gradients choose, and only the moments live in it.
    Tensors of more than two dimensions count as ``[shape[0], -1]``; vectors keep their own coordinates.

    Args:
        rank: r; a matrix whose shorter side is less gets its whole space, and no renewal.
        update: how S is renewed: ``"svd"``, the leading singular vectors of the gradient (GaLore); ``"walk"``, a
            random geodesic step; ``"jump"``, an independent random subspace; ``"track"``, a geodesic step towards
            the gradient (SubTrack++). The first S is always the one of ``"svd"``.
        interval: steps between renewals.
        angle: radians of the largest principal angle of a geodesic step (``"walk"``, ``"track"``).
        adaptive: transport the moments at a renewal; if false, they are kept as they are.
        recover: add what lies outside the subspace.
        growth: by how much the norm of that part may grow in a step.
        scale: factor of the part inside the subspace.
        seed: of the random subspaces, which are functions of it, of the tensor's place in its param group and of
            the step, so that every rank draws the same ones.

    Raises:
        ArgumentError: a value out of range.

    Source: Rajabi et al., "Randomized gradient subspaces for efficient large language model training", 2025; with
    ``"svd"``, Zhao et al., "GaLore", 2024.

    >>> from covector.optim import Optimizer, Slots
    >>> from covector.optim.adam import ADAM
    >>> p = torch.nn.Parameter(torch.zeros(4, 6))
    >>> p.grad = torch.ones(4, 6)
    >>> optimizer = Optimizer([p], Slots(ADAM, basis=GradientSubspace(rank=2)), betas=(0.9, 0.999), eps=1e-8)
    >>> optimizer.step()
    >>> [(name, tuple(optimizer.state[p][name].shape)) for name in ("subspace", "exp_avg", "exp_avg_sq")]
    [('subspace', (4, 2)), ('exp_avg', (2, 6)), ('exp_avg_sq', (2, 6))]
    """

    def __init__(
        self,
        rank: int,
        update: Renewal = "svd",
        interval: int = 200,
        *,
        angle: float = 0.3,
        adaptive: bool = True,
        recover: bool = True,
        growth: float = 1.01,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        if update not in get_args(Renewal):
            raise ArgumentError("update", update, "one of " + ", ".join(get_args(Renewal)))
        for name, whole in (("rank", rank), ("interval", interval)):
            if int(whole) != whole or whole < 1:
                raise ArgumentError(name, whole, "a whole number of at least 1")
        if not 0 < angle <= torch.pi / 2:
            raise ArgumentError("angle", angle, "radians above 0 up to pi / 2")
        if not growth >= 1:
            raise ArgumentError("growth", growth, "a number of at least 1")
        if not 0 < scale < float("inf"):
            raise ArgumentError("scale", scale, "a finite number above 0")
        self.rank, self.update, self.interval, self.angle = int(rank), update, int(interval), angle
        self.adaptive, self.recover, self.growth, self.scale = adaptive, recover, growth, scale
        self.seed = check_seed(seed)

    def project(self, bucket: Bucket, grads: list[Tensor]) -> list[Tensor]:
        """``S^T G`` of each matrix, after S was made or renewed where that is due."""
        due = int(bucket.t) > 1 and (int(bucket.t) - 1) % self.interval == 0
        projected = []
        for param, state, grad in zip(bucket.params, bucket.states, grads, strict=True):
            if grad.ndim < 2:
                projected.append(grad)
                continue
            g = _wide(grad)
            if "subspace" not in state:
                state["subspace"] = leading(_finite(g), min(self.rank, len(g)))
            elif due and self.rank < len(g):
                old = state["subspace"]
                state["subspace"] = self.renewed(old, g, _place(bucket, param), int(bucket.t))
                if self.adaptive:
                    _carry(state["subspace"].mT @ old, state, bucket)
            projected.append(_coordinates(state["subspace"], g))
        bucket.scratch["projected"] = projected
        return projected

    def renewed(self, s: Tensor, gradient: Tensor, place: str, step: int) -> Tensor:
        """The basis that follows ``s [m, r]``, for a gradient ``[m, n]``; see ``update``."""
        if self.update == "svd":
            return leading(_finite(gradient), s.shape[1])
        if self.update == "track":
            return track(s, _finite(gradient), self.angle)
        normal = draw(
            self.seed, place, s.numel(), "normal", stream=Stream.DIRECTIONS, step=step, dtype=s.dtype, device=s.device
        ).view_as(s)
        return random_point(normal) if self.update == "jump" else walk(s, normal, self.angle)

    def lift(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """``scale S o``, and what was outside the subspace, in the shape of the parameters."""
        lifted = []
        for state, o, g, grad in zip(bucket.states, directions, bucket.scratch["projected"], grads, strict=True):
            if grad.ndim < 2:
                lifted.append(o)
                continue
            wide, s = _wide(grad), state["subspace"]
            if self.recover and s.shape[0] > s.shape[1]:
                phi = self._column_factors(state, o, g, wide)
                # S (scale o) + phi (G - S g), with one product
                whole = torch.addmm(wide * phi, s, self.scale * o - phi * g)
            else:
                whole = s @ (self.scale * o)
            lifted.append((whole if _is_wide(grad) else whole.mT).reshape(grad.shape))
        return lifted

    def _column_factors(self, state: dict[str, Any], o: Tensor, g: Tensor, whole: Tensor) -> Tensor:
        """``phi`` of each column, scaled down where the norm of ``phi (G - S g)`` grows by more than ``growth``."""
        inside = g.square().sum(0)
        phi = o.norm(dim=0) / (inside.sqrt() + 1e-8)
        # the norm of G - S g by Pythagoras
        norm = (phi.square() * (whole.square().sum(0) - inside).clamp(min=0)).sum().sqrt()
        before = state.get("residual_norm", torch.zeros_like(norm))
        limit = self.growth * before
        # a norm of zero, as after a gradient of zeros, would hold the part at zero forever
        factor = torch.where((before > 0) & (norm > limit), limit / norm, 1.0)
        state["residual_norm"] = norm * factor
        scaled: Tensor = phi * factor
        return scaled


def _coordinates(s: Tensor, g: Tensor) -> Tensor:
    """``S^T G`` without what is rounding: in a direction that has no gradient, Adam would scale it to whole steps."""
    projected = s.mT @ g
    rounding = 16 * torch.finfo(g.dtype).eps * g.norm(dim=0)
    return torch.where(projected.abs() > rounding, projected, 0.0)


def _carry(change: Tensor, state: dict[str, Any], bucket: Bucket) -> None:
    """Moments in the new basis; states other than Adam's two are taken as linear in the gradient."""
    names, passed = bucket.slots.rule.states, int(bucket.t) - 1
    if "exp_avg_sq" in names:
        b1, b2 = bucket.group["betas"]
        seen, seen_sq = 1 - b1**passed, 1 - b2**passed
        mean, square = transport(change, state["exp_avg"] / seen, state["exp_avg_sq"] / seen_sq)
        state["exp_avg"], state["exp_avg_sq"] = mean * seen, square * seen_sq
    for name in names:
        if name not in ("exp_avg", "exp_avg_sq") or "exp_avg_sq" not in names:
            state[name] = change @ state[name]


def _is_wide(tensor: Tensor) -> bool:
    return tensor.shape[0] ** 2 <= tensor.numel()


def _wide(tensor: Tensor) -> Tensor:
    """A matrix that is not taller than wide."""
    return tensor.flatten(1) if _is_wide(tensor) else tensor.flatten(1).mT


def _finite(gradient: Tensor) -> Tensor:
    if not bool(gradient.isfinite().all()):
        raise NonFiniteError(f"the gradient of a matrix of shape {tuple(gradient.shape)} is not finite: no subspace")
    return gradient


def _place(bucket: Bucket, param: Tensor) -> str:
    """A name for a parameter that does not depend on which parameters have a gradient."""
    position = next(i for i, p in enumerate(bucket.group["params"]) if p is param)
    return f"{position}:{'x'.join(map(str, param.shape))}"
