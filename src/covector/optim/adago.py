"""AdaGO: Muon whose step falls as that of AdaGrad-Norm, for each matrix by itself.

With ``c = min(||G||_F, gamma)`` and ``V <- V + c^2``, each matrix steps by ``max(min_step, lr c / sqrt(V)) msign(M)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.magnitude import squared_norms
from covector.optim.muon import Muon
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.slots import Bucket, Scale

__all__ = ["AdaGO", "AdaGOStep"]


class AdaGOStep:
    """Slot 5: ``min(||G||, gamma)`` over the root of the sum of its squares, of each tensor.

    Args:
        gamma: longest gradient that counts.
        min_step: smallest step, whatever the sum; a learning rate of 0 still stands still.
        v0: root of the sum at the start.

    Raises:
        ArgumentError: a setting out of range.

    >>> AdaGOStep().gamma
    10.0
    """

    needs_directions = False

    def __init__(self, gamma: float = 10.0, min_step: float = 5e-4, v0: float = 1e-6) -> None:
        for name, value in {"gamma": gamma, "v0": v0}.items():
            if not value > 0.0:
                raise ArgumentError(name, value, "a number above 0")
        if not min_step >= 0.0:
            raise ArgumentError("min_step", min_step, "a number of at least 0")
        self.gamma, self.min_step, self.v0 = gamma, min_step, v0

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Add the squares of this step's norms; a step is never longer than the learning rate."""
        for bucket in buckets:
            if self not in bucket.slots.scales:
                continue
            for state, square in zip(bucket.states, squared_norms(bucket), strict=True):
                clipped = square.clamp_max(self.gamma**2)
                total = state["square_sum"] if "square_sum" in state else torch.full_like(square, self.v0**2)
                state["square_sum"] = total + clipped
                state["share"] = (clipped / state["square_sum"]).sqrt()

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """``max(min_step / lr, c / sqrt(V))``."""
        lr = float(bucket.group["lr"])
        least = self.min_step / lr if lr > 0.0 else 0.0
        return [state["share"].clamp_min(least) for state in bucket.states]


class AdaGO(Muon):
    """AdaGO: Muon that needs no schedule of its learning rate.

    Args:
        params: a module (matrices are found by their roles), parameters, or param groups.
        lr: longest step of the matrices, default 0.05.
        momentum: decay of the average.
        weight_decay: of the matrices, decoupled.
        gamma: longest gradient that counts.
        min_step: smallest step; the paper's epsilon.
        v0: root of the sum of squares at the start.
        nesterov: look ahead; the paper does not.
        scale: by shape, default ``"none"``.
        scales: further scale rules.
        options: as for :class:`Muon`.

    Source: Zhang, Liu, Schaeffer, "AdaGrad meets Muon: adaptive stepsizes for orthogonal updates", 2025, Algorithm 1.

    >>> p = torch.nn.Parameter(torch.zeros(2, 2))
    >>> optimizer = AdaGO([p], lr=0.1, method="svd")
    >>> for _ in range(4):
    ...     p.grad = torch.eye(2)
    ...     update = optimizer.update()[p]
    >>> round(-update[0, 0].item(), 4)  # 0.1 / sqrt(4)
    0.05
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.05,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        gamma: float = 10.0,
        min_step: float = 5e-4,
        v0: float = 1e-6,
        nesterov: bool = False,
        scale: str = "none",
        scales: Sequence[Scale] = (),
        **options: Any,
    ) -> None:
        rule = AdaGOStep(gamma, min_step, v0)
        super().__init__(
            params, lr, momentum, weight_decay, nesterov=nesterov, scale=scale, scales=(rule, *scales), **options
        )
