"""AdaGrad-Norm: one step size for all, that falls with the sum of squared gradient norms.

::

    S_t = S_{t-1} + ||g_t||^2,  S_0 = b0^2        p <- p - lr g_t / sqrt(S_t)

The current gradient is part of the sum. Neither the smoothness nor the noise has to be known: for an L-smooth function
without noise, ``b_t = sqrt(S_t)`` grows no further than::

    b_T - b_0  <=  (f(p_1) - f*) / lr + L lr ln(b_T / b_0)

which :meth:`AdaGradNorm.certificate` turns around.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError
from covector.optim.checks import check_positive
from covector.optim.magnitude import squared_norm, squared_norms
from covector.optim.optimizer import Optimizer, Params
from covector.optim.sgd import PLAIN
from covector.optim.slots import Bucket, Slots

__all__ = ["AdaGradNorm", "AdaGradNormStep", "Certificate"]


class AdaGradNormStep:
    """Scale rule: ``1 / sqrt(b0^2 + sum of squared norms)``, for the whole model or for each tensor.

    Args:
        b0: root of the sum's start.
        scope: ``"global"``: one sum; ``"tensor"``: one for each tensor.

    >>> import torch
    >>> from covector.optim import Optimizer, Slots
    >>> from covector.optim.sgd import PLAIN
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> Optimizer([p], Slots(PLAIN, scales=(AdaGradNormStep(b0=1e-8),)), lr=1.0).update()[p]
    tensor([-0.6000, -0.8000])
    """

    needs_directions = False

    def __init__(self, b0: float = 1e-2, scope: str = "global") -> None:
        check_positive({"b0": b0}, "b0")
        if scope not in ("global", "tensor"):
            raise ArgumentError("scope", scope, "'global' or 'tensor'")
        self.b0, self.scope = b0, scope

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Add this step's squared norms to the sums."""
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        if self.scope == "global":
            shared = mine[0].shared
            shared["sum_of_squared_norms"] = shared.get("sum_of_squared_norms", self.b0**2) + squared_norm(mine)
            if loss is not None:
                shared.setdefault("first_loss", float(loss))
            return
        for bucket in mine:
            for state, square in zip(bucket.states, squared_norms(bucket), strict=True):
                state["sum_of_squared_norms"] = state.get("sum_of_squared_norms", self.b0**2) + square

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """``1 / sqrt(S)`` for each tensor."""
        if self.scope == "global":
            return [bucket.shared["sum_of_squared_norms"].rsqrt()] * len(bucket.params)
        return [state["sum_of_squared_norms"].rsqrt() for state in bucket.states]


@dataclass(frozen=True)
class Certificate:
    """What the run so far says about the function, if its gradients are exact.

    Args:
        smoothness: a lower bound of the smoothness L that the trajectory has met; 0 where it says nothing.
        growth: ``b_T - b_0``, the left-hand side of the bound.
        bound: the right-hand side, for the L that was asked about; None without one.
        step: the step size now, ``lr / b_T``.
    """

    smoothness: float
    growth: float
    bound: float | None
    step: float


class AdaGradNorm(Optimizer):
    """Gradient descent with the step size ``lr / sqrt(b0^2 + sum ||g||^2)``.

    Args:
        params: a module, parameters, or param groups.
        lr: of the order of the distance to the solution, default 1; too large costs little, too small is slow.
        b0: root of the sum's start, default 1e-2; not worth tuning.
        scope: ``"global"``: norms of the whole model; ``"tensor"``: each tensor by itself.
        weight_decay: strength; decoupled.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Ward, Wu, Bottou 2019; Attia and Koren, "SGD with AdaGrad stepsizes: full adaptivity with high probability
    to unknown parameters, unbounded gradients and affine variance", 2023.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = AdaGradNorm([p], lr=10.0)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (p.square().sum() / 2).backward()
    ...     optimizer.step()
    >>> bool(p.norm() < 1e-3)
    True
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        b0: float = 1e-2,
        scope: str = "global",
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        self.rule = AdaGradNormStep(b0, scope)
        super().__init__(params, Slots(PLAIN, scales=(self.rule,)), lr, weight_decay=weight_decay, **options)

    def certificate(
        self, f_star: float, first_loss: float | None = None, smoothness: float | None = None
    ) -> Certificate:
        """What the growth of the step's denominator says about the smoothness of the function.

        Holds for exact gradients of one function, a constant lr and no weight decay.

        Args:
            f_star: a lower bound of the function's values.
            first_loss: the loss before the first step; default: the one that was given to the first ``step``.
            smoothness: an L to compute the bound for.

        Raises:
            ArgumentError: no step has been taken, or the first loss is not known or below ``f_star``.
            UnsupportedError: the scope is not global.

        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        >>> optimizer = AdaGradNorm([p], lr=1.0)
        >>> for _ in range(50):
        ...     p.grad = p.detach().clone()
        ...     optimizer.step(loss=p.detach().square().sum() / 2)
        >>> optimizer.certificate(f_star=0.0).smoothness < 1.0
        True
        """
        if self.rule.scope != "global":
            raise UnsupportedError(f"a certificate needs scope='global', not {self.rule.scope!r}")
        shared: Mapping[str, Any] = self.state.get("shared", {})  # type: ignore[call-overload]
        if not shared:
            raise ArgumentError("certificate", "no step", "at least one step taken")
        first = shared.get("first_loss") if first_loss is None else first_loss
        if first is None or not first >= f_star:
            raise ArgumentError("first_loss", first, f"the loss before the first step, at least f_star={f_star}")
        b0, b = self.rule.b0, math.sqrt(float(shared["sum_of_squared_norms"]))
        lr = float(self.param_groups[0]["lr"])
        gap, logarithm = (first - f_star) / lr, lr * math.log(b / b0)
        least = max(0.0, (b - b0 - gap) / logarithm) if logarithm > 0.0 else 0.0
        bound = None if smoothness is None else gap + smoothness * logarithm
        return Certificate(least, b - b0, bound, lr / b)
