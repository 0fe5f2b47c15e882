"""The induced-metric optimizer: the loss surface's own metric, which is a smooth form of clipping.

The graph of the loss in R^{N+1} has the metric ``G + xi grad L grad L^T``. By the formula of Sherman and Morrison its
inverse shortens the gradient and does not turn it::

    (G + xi g g^T)^{-1} g = G^{-1} g / (1 + xi g^T G^{-1} g)

With ``M = EMA(momentum)(g)``, corrected, and ``Q`` the corrected average of ``xi g^T G^{-1} g`` over all parameters::

    sgd   p <- p - lr M / (1 + Q)
    log   p <- p - lr M L / (L^2 + Q)            the surface of log L; needs the loss, positive
    rms   p <- p - lr (M / D) / (1 + Q)          G = diag(D), D = sqrt(EMA(beta_rms)(g^2), corrected) + eps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError
from covector.optim.advance import state_dtype
from covector.optim.checks import check_fractions, check_nonnegative
from covector.optim.magnitude import squared_norm
from covector.optim.operations import sqrt
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Bucket, Slots

__all__ = ["InducedMetric", "InducedMetricStep"]

FORMS = ("sgd", "log", "rms")


def momentum(g: Any, m: Any, mu: Any, rest: Any, k: Any) -> tuple[Any, ...]:
    """The bias-corrected mean gradient."""
    m = mu * m + rest * g
    return k * m, m


def rms(g: Any, m: Any, v: Any, mu: Any, rest: Any, k: Any, b: Any, c: Any, kv: Any, eps: Any) -> tuple[Any, ...]:
    """The mean gradient over the root mean square, both corrected."""
    m = mu * m + rest * g
    v = b * v + c * g * g
    return k * m / (kv * sqrt(v) + eps), m, v


def momentum_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``mu, 1 - mu`` and the correction."""
    mu = group["momentum"]
    return mu, 1.0 - mu, 1.0 / (1.0 - mu**t)


def rms_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of the momentum, then of the mean square, and ``eps``."""
    b = group["beta_rms"]
    return *momentum_numbers(t, group), b, 1.0 - b, (1.0 - b**t) ** -0.5, group["eps"]


MOMENTUM = Rule(momentum, ("exp_avg",), momentum_numbers)
RMS = Rule(rms, ("exp_avg", "exp_avg_sq"), rms_numbers)


class InducedMetricStep:
    """Scale rule: ``1 / (1 + Q)``, one number for all parameters.

    Args:
        xi: how steep the embedding is; 0 leaves every step as it is.
        beta: decay of the average of ``xi ||g||^2``; 0 is the pure metric.
        form: ``"sgd"``, ``"log"`` or ``"rms"``.
        normalize: ``"mean"`` divides the squared norm by the number of parameters, so that xi does not depend on it.

    >>> from covector.optim import Optimizer
    >>> from covector.optim.sgd import PLAIN
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> Optimizer([p], Slots(PLAIN, scales=(InducedMetricStep(xi=0.16, beta=0.0),)), lr=1.0).update()[p]
    tensor([-0.6000, -0.8000])
    """

    needs_directions = False

    def __init__(self, xi: float = 0.1, beta: float = 0.8, form: str = "sgd", normalize: str | None = None) -> None:
        check_nonnegative({"xi": xi}, "xi")
        check_fractions({"beta": beta}, "beta")
        if form not in FORMS:
            raise ArgumentError("form", form, "'sgd', 'log' or 'rms'")
        if normalize not in (None, "mean"):
            raise ArgumentError("normalize", normalize, "None or 'mean'")
        self.xi, self.beta, self.form, self.normalize = xi, beta, form, normalize
        self._factor: Any = 1.0

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Advance the average of the squared norm, and take the loss."""
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        level = self._level(loss)
        square: Any = _weighted_square(mine) if self.form == "rms" else squared_norm(mine)
        if self.normalize == "mean":
            square = square / sum(p.numel() for bucket in mine for p in bucket.params)
        shared = mine[0].shared
        seen = shared.get("metric_steps", 0) + 1
        average = self.beta * shared.get("metric_avg", 0.0) + (1.0 - self.beta) * self.xi * square
        shared["metric_steps"], shared["metric_avg"] = seen, average
        q = average / (1.0 - self.beta**seen)
        self._factor = 1.0 / (1.0 + q) if self.form != "log" else level / (level * level + q)

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """The same number for each tensor."""
        return [self._factor] * len(bucket.params)

    def _level(self, loss: Any) -> float:
        if self.form != "log":
            return 1.0
        if loss is None:
            raise ArgumentError("loss", None, "the loss, as step(closure) or step(loss=loss), for form='log'")
        if not float(loss) > 0.0:
            raise NonFiniteError(f"the logarithm of the loss {float(loss)} is not defined; add a constant to the loss")
        return float(loss)


def _weighted_square(buckets: Sequence[Bucket]) -> Tensor:
    """``sum g^2 / D``, with the mean square as the step will leave it."""
    total: list[Tensor] = []
    for bucket in buckets:
        b, eps = bucket.group["beta_rms"], bucket.group["eps"]
        correction = 1.0 / (1.0 - b**bucket.t)
        kind = state_dtype(bucket.params[0].dtype)
        for g, sign, state in zip(bucket.grads, bucket.signs, bucket.states, strict=True):
            seen = g.to(kind) * sign
            v = b * state["exp_avg_sq"] + (1.0 - b) * seen * seen
            total.append((seen * seen / ((v * correction).sqrt() + eps)).sum())
    return torch.stack([part.to(total[0]) for part in total]).sum()


class InducedMetric(Optimizer):
    """Gradient descent in the metric that the loss surface inherits from the space around it.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 0.1.
        momentum: decay of the mean gradient, which is bias-corrected.
        xi: how steep the embedding is. The squared norm grows with the number of parameters: scale xi by its inverse,
            or set ``normalize="mean"``.
        beta: decay of the average of ``xi ||g||^2``; 0 is the pure metric.
        form: ``"sgd"``, ``"log"`` (surface of the loss's logarithm) or ``"rms"``.
        weight_decay: strength; decoupled.
        eps: added to the root, in the rms form.
        beta_rms: decay of the mean square, in the rms form.
        normalize: None, or ``"mean"``.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Harvey, "The optimiser hidden in plain sight: training with the loss landscape's induced metric", 2025.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([300.0, 400.0])
    >>> InducedMetric([p], lr=1.0, xi=1.0).update()[p].norm() < 0.5  # never more than lr / (2 sqrt(xi))
    tensor(True)
    """

    fractions = ("momentum", "beta_rms")
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        xi: float = 0.1,
        beta: float = 0.8,
        form: str = "sgd",
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        beta_rms: float = 0.99,
        normalize: str | None = None,
        **options: Any,
    ) -> None:
        scale = InducedMetricStep(xi, beta, form, normalize)
        slots = Slots(RMS if form == "rms" else MOMENTUM, scales=(scale,))
        options = {"momentum": momentum, "eps": eps, "beta_rms": beta_rms, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, **options)
