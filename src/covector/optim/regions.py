"""Trust regions in any norm: momentum, and a step of fixed length in the direction of steepest descent.

Each step minimizes ``<m, x>`` over the ball ``||x - x_k|| <= lr``, which is ``x_k - lr T(m)``: normalized SGD for the
Frobenius norm, sign descent for the largest element, Muon for the largest singular value. With weight decay ``w`` the
ball is around ``(1 - lr w) x_k``, and iterates stay in ``||x|| <= max(||x_0||, 1 / w)``. With extrapolation gradients
are taken at ``x + mu / (1 - mu) (x - x_before)``.

Source: D. Kovalev, "Understanding gradient orthogonalization for deep learning via non-Euclidean trust-region
optimization", 2025, Algorithms 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, CompositionError
from covector.optim.composite import Lasso, LassoStep
from covector.optim.constraints import Box
from covector.optim.ema import MOMENTUM, WARM
from covector.optim.lmo import LMO
from covector.optim.normed import NormOptimizer
from covector.optim.norms import MatrixNorm, MaxAbs
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.slots import Bucket, Map, Scale, Slots

__all__ = ["DualNormMonitor", "Scion", "TrustRegion"]


class TrustRegion(NormOptimizer):
    """Momentum, then a step of length ``lr`` in a norm.

    Args:
        params: a module (norms are chosen by role), parameters, or param groups.
        lr: radius of the trust region, default 0.01.
        norm: ``"auto"``, or one norm for all.
        momentum: ``mu = 1 - alpha``, decay of the average of gradients.
        weight_decay: strength, decoupled; ``1 / weight_decay`` is the radius of the ball that iterates stay in.
        extrapolate: the parameters are the points where gradients are wanted; :meth:`iterates` are the solution.
        composite: a term added to the loss that the step minimizes exactly, in the norm ``MaxAbs()`` only: a
            :class:`~covector.optim.Box` to stay in, or a :class:`~covector.optim.Lasso`.
        warm: the average starts at the first gradient, as in the paper; false: at zero, as Muon's does.
        method: of polar factors.
        scales: scale rules of the directions.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        CompositionError: a composite term in a norm for which its step has no closed form.
        ArgumentError: extrapolation together with weight decay or a composite term, for which it is not defined.

    >>> from covector.optim import Spectral
    >>> p = torch.nn.Parameter(torch.zeros(2, 2))
    >>> p.grad = torch.tensor([[3.0, 0.0], [0.0, -0.1]])
    >>> TrustRegion([p], lr=0.5, norm=Spectral("svd")).update()[p]
    tensor([[-0.5000,  0.0000],
            [ 0.0000,  0.5000]])
    """

    fractions = ("momentum",)

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.01,
        norm: str | MatrixNorm = "auto",
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        extrapolate: bool = False,
        composite: Box | Lasso | None = None,
        warm: bool = True,
        method: str = "auto",
        scales: Sequence[Scale] = (),
        **options: Any,
    ) -> None:
        if composite is not None and not (isinstance(norm, MaxAbs) and not norm.fan):
            raise CompositionError(f"the step of {composite} in the norm {norm} has no closed form; use norm=MaxAbs()")
        if extrapolate and composite is not None:
            raise ArgumentError("composite", composite, "None together with extrapolate=True")
        self.extrapolate = extrapolate
        if isinstance(composite, Box):
            options["constraint"] = composite

        def compose(norm: MatrixNorm) -> Slots:
            lmo: Map = LassoStep(composite.strength) if isinstance(composite, Lasso) else LMO(norm)
            maps = (lmo, Extrapolation()) if extrapolate else (lmo,)
            return Slots(WARM if warm else MOMENTUM, maps=maps, scales=tuple(scales))

        super().__init__(
            params, norm, compose, lr, method=method, weight_decay=weight_decay, momentum=momentum, **options
        )

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if self.extrapolate and group["weight_decay"]:
            raise ArgumentError("weight_decay", group["weight_decay"], "0 together with extrapolate=True")

    @torch.no_grad()
    def iterates(self) -> dict[Tensor, Tensor]:
        """The solution at each parameter: what was extrapolated from, where there is extrapolation."""
        return {
            p: p + ahead(group) * self.state[p]["last_step"].to(p.dtype) if "last_step" in self.state[p] else p.clone()
            for group in self.param_groups
            for p in group["params"]
        }


class Extrapolation:
    """Slot 4, last: the parameters are ``y = x + c (x - x_before)`` with ``c = mu / (1 - mu)``.

    >>> p = torch.zeros(2)
    >>> bucket = Bucket({"momentum": 0.5, "lr": 0.1}, None, [p], [], [{}], 1)
    >>> Extrapolation()(bucket, [torch.ones(2)], [])
    [tensor([2., 2.])]
    """

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        c, lr = ahead(bucket.group), float(bucket.group["lr"])
        if lr == 0.0:
            return [torch.zeros_like(d) for d in directions]
        out = []
        for state, d in zip(bucket.states, directions, strict=True):
            before = state.get("last_step")
            out.append((1.0 + c) * d - (c / lr) * before if before is not None else (1.0 + c) * d)
            state["last_step"] = lr * d
        return out


def ahead(group: Mapping[str, Any]) -> float:
    """``mu / (1 - mu)``."""
    return float(group["momentum"] / (1.0 - group["momentum"]))


class Scion(TrustRegion):
    """Scion: a trust region within a ball, ``p <- (1 - lr) p - lr radius T(m)``.

    Args:
        params: a module (norms are chosen by role), parameters, or param groups.
        lr: share of the way to the ball's surface, default 1e-3.
        radius: of the ball.
        norm: ``"auto"``, or one norm for all.
        momentum: decay of the average.
        weight_decay: default ``1 / radius``, the ball; 0 leaves it out.
        options: as for :class:`TrustRegion`.

    Source: Pethick et al., "Training deep learning models with norm-constrained LMOs", 2025, Algorithms 1 and 2.

    >>> Scion([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.5, radius=4.0).defaults["weight_decay"]
    0.25
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 1e-3,
        radius: float = 50.0,
        norm: str | MatrixNorm = "auto",
        momentum: float = 0.9,
        weight_decay: float | None = None,
        **options: Any,
    ) -> None:
        if not 0.0 < radius < float("inf"):
            raise ArgumentError("radius", radius, "a finite number above 0")
        decay = 1.0 / radius if weight_decay is None else weight_decay
        super().__init__(params, lr * radius, norm, momentum, decay, **options)


class DualNormMonitor:
    """Watches dual norms ``||m||_* = <m, T(m)>``, in which theory measures how close to stationary a point is.

    Args:
        optimizer: one whose directions come from norms: Muon, AdaGO, LANTON, TrustRegion, Scion.

    Raises:
        CompositionError: no direction of the optimizer comes from a norm.

    >>> from covector.optim import MaxAbs
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = TrustRegion([p], norm=MaxAbs())
    >>> monitor = DualNormMonitor(optimizer)
    >>> p.grad = torch.tensor([3.0, -1.0])
    >>> optimizer.step()
    >>> monitor.total()
    4.0
    """

    def __init__(self, optimizer: Any) -> None:
        maps = [m for slots in optimizer.slots.values() for m in slots.maps if isinstance(m, LMO)]
        if not maps:
            raise CompositionError(f"{type(optimizer).__name__} has no directions that come from a norm")
        self.values: dict[Tensor, Tensor] = {}
        for map_ in maps:
            map_.watch = self._see

    def total(self) -> float:
        """The dual norm of the momentum of all watched parameters at the last step, the sum of theirs."""
        return float(sum(float(value) for value in self.values.values()))

    def _see(self, bucket: Bucket, momenta: list[Tensor], directions: list[Tensor]) -> None:
        for param, m, t in zip(bucket.params, momenta, directions, strict=True):
            self.values[param] = (m * t).sum()
