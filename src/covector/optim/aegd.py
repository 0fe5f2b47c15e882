"""Gradient descent with an energy: steps that shrink so that an energy falls, whatever the learning rate.

For a function f bounded below and c with ``f + c > 0``, let ``v = grad f / (2 sqrt(f + c))``, the gradient of
``sqrt(f + c)``. The energy r starts at ``sqrt(f(x_0) + c)``::

    AEGD   r_i <- r_i / (1 + 2 lr v_i^2)          x_i <- x_i - 2 lr r_i v_i
    AEPG   r <- r / (1 + 2 lr v^T d)              x <- x - 2 lr r d,        d = A^{-1} v

and ``r_{k+1}^2 = r_k^2 - (r_{k+1} - r_k)^2 - ||x_{k+1} - x_k||_A^2 / lr``: the energy falls for every lr. That does not
make f fall: where r sinks far below ``sqrt(f + c)``, steps become too small to go on; watch ``ratio``, and restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError
from covector.optim.advance import state_dtype
from covector.optim.metrics import Euclidean, Metric
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Bucket, Slots

__all__ = ["AEGD", "AEPG", "EnergyStep"]


def aegd(g: Any, r: Any, lr: Any, one: Any, two: Any) -> tuple[Any, ...]:
    """``r = r / (1 + 2 lr v^2)``, direction ``2 r v``; Liu and Tian 2020, Algorithm 1."""
    r = r / (one + two * lr * g * g)
    return two * r * g, r


def aegdm(g: Any, r: Any, m: Any, lr: Any, one: Any, two: Any, mu: Any) -> tuple[Any, ...]:
    """AEGDM: the momentum ``m = mu m + v`` in place of v."""
    m = mu * m + g
    r = r / (one + two * lr * m * m)
    return two * r * m, r, m


def numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """lr, and the numbers of the formula."""
    return group["lr"], 1.0, 2.0


def momentum_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of :func:`numbers`, and the momentum."""
    return *numbers(t, group), group["momentum"]


AEGD_RULE = Rule(aegd, ("energy",), numbers)
AEGDM_RULE = Rule(aegdm, ("energy", "momentum_buffer"), momentum_numbers)
COVECTOR = Rule(lambda g: (g,), (), lambda t, group: ())


def level(loss: Any, c: float) -> float:
    """``sqrt(loss + c)``, checked.

    >>> level(8.0, 1.0)
    3.0
    """
    if loss is None:
        raise ArgumentError("loss", None, "the loss: step(closure), or step(loss=loss)")
    value = float(loss) + c
    if not (math.isfinite(value) and value > 0.0):
        raise NonFiniteError(f"the loss {float(loss)} plus c={c} is {value}: it must be positive; choose a larger c")
    return math.sqrt(value)


class Root:
    """Scale rule of AEGD that scales nothing: it turns gradients of f into those of ``sqrt(f + c)``."""

    needs_directions = False

    def __init__(self, c: float) -> None:
        self.c = c

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Rescale the gradients, and set the energies of parameters that start."""
        root = level(loss, self.c)
        for bucket in buckets:
            if self not in bucket.slots.scales:
                continue
            bucket.signs[:] = [sign / (2.0 * root) for sign in bucket.signs]
            for state in bucket.states:
                if state["step"] == 1:
                    state["energy"].fill_(root)

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """1 for each tensor."""
        return [1.0] * len(bucket.params)


class AEGD(Optimizer):
    """Adaptive gradient descent with an energy for each coordinate; stable for every learning rate.

    ``step`` needs the loss: ``step(closure)`` or ``step(loss=loss)``.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 0.1; the authors suggest 0.1 to 0.4, with decoupled decay 0.6 to 0.9.
        c: added to the loss, so that the sum is positive.
        momentum: AEGDM where above 0.
        weight_decay: strength; added to the gradient of ``sqrt(f + c)``; with ``decoupled=True``, decoupled (AEGDW).
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: from ``step``, where the loss is not given.
        NonFiniteError: from ``step``, where the loss plus c is not positive. Nothing has changed then.

    Source: Liu and Tian, "AEGD: adaptive gradient descent with energy", 2020.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0]))
    >>> optimizer = AEGD([p], lr=100.0)
    >>> for _ in range(5):
    ...     loss = p.square().sum() / 2
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step(loss=loss.detach())
    >>> bool(p.abs() < 3.0)
    True
    """

    fractions = ("momentum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        c: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        _check_constant(c)
        root = (Root(c),)
        slots = {"plain": Slots(AEGD_RULE, scales=root), "momentum": Slots(AEGDM_RULE, scales=root)}
        options = {"decoupled": False, "momentum": momentum, **options}
        super().__init__(params, slots, lr, weight_decay=weight_decay, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        momentum = param_group.get("momentum", self.defaults["momentum"])
        param_group.setdefault("slots", "momentum" if momentum else "plain")
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        _check_capturable(group)


class EnergyStep:
    """Map and scale rule of AEPG: directions ``A^{-1} v`` and the energy's step, one number for the whole model.

    Args:
        c: added to the loss, so that the sum is positive.
        metric: A; default Euclidean.
        restart: where the energy falls below this share of ``sqrt(f + c)``, it starts anew there; 0 never.

    Attributes:
        ratio: ``r / sqrt(f + c)`` in the last step; the step size is lr times it.

    >>> EnergyStep(c=1.0).ratio
    1.0
    """

    needs_directions = False

    def __init__(self, c: float = 1.0, metric: Metric | None = None, restart: float = 0.0) -> None:
        _check_constant(c)
        if not 0.0 <= restart < 1.0:
            raise ArgumentError("restart", restart, "a number in [0, 1)")
        self.c, self.metric, self.restart = c, metric or Euclidean(), restart
        self.ratio = 1.0
        self._factor = 1.0
        self._directions: dict[Tensor, Tensor] = {}

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Take the directions of the whole model, and let the energy fall."""
        root = level(loss, self.c)
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        for bucket in mine:
            bucket.signs[:] = [sign / (2.0 * root) for sign in bucket.signs]
        points, covectors, owners = _flat(mine)
        directions = self.metric.inverse(points, covectors)
        self._directions = dict(zip(owners, directions, strict=True))
        slope = sum(
            float(bucket.group["lr"]) * float((v.double() * self._directions[p].double()).sum())
            for bucket, p, v in zip(_owning(mine), owners, covectors, strict=True)
        )
        if not math.isfinite(slope):
            raise NonFiniteError(f"the slope along the direction is {slope}; lower the learning rate")
        shared = mine[0].shared
        r = shared.get("energy", root)
        if r < self.restart * root:
            r = root
        r = r / (1.0 + 2.0 * slope)
        shared["energy"], self.ratio, self._factor = r, r / root, 2.0 * r

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Directions in the metric."""
        return [self._directions.pop(p) for p in bucket.params]

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """``2 r`` for each tensor."""
        return [self._factor] * len(bucket.params)


def _owning(buckets: Sequence[Bucket]) -> list[Bucket]:
    return [bucket for bucket in buckets for _ in bucket.params]


def _flat(buckets: Sequence[Bucket]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Points and covectors in the precision of states, and the parameters they belong to."""
    points, covectors, owners = [], [], []
    for bucket in buckets:
        decay = 0.0 if bucket.group["decoupled"] else bucket.group["weight_decay"]
        for p, g, sign in zip(bucket.params, bucket.grads, bucket.signs, strict=True):
            kind = state_dtype(p.dtype)
            points.append(p.to(kind))
            covectors.append(g.to(kind) * sign + decay * p.to(kind) if decay else g.to(kind) * sign)
            owners.append(p)
    return points, covectors, owners


class AEPG(Optimizer):
    """Preconditioned gradient descent with one energy: in any metric, stable for every learning rate.

    ``step`` needs the loss: ``step(closure)`` or ``step(loss=loss)``.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 0.1; the first step has ``lr`` times the preconditioned gradient as length at most.
        c: added to the loss, so that the sum is positive; larger keeps the energy up for longer.
        metric: A: :class:`~covector.optim.Simplex`, :class:`~covector.optim.Orthant`,
            :class:`~covector.optim.BoxMetric`, :class:`~covector.optim.Affine`, :class:`~covector.optim.Natural`, or
            any other :class:`~covector.optim.Metric`; default Euclidean.
        restart: where the energy falls below this share of ``sqrt(f + c)``, it starts anew there (ours); 0 never.
        weight_decay: strength; added to the gradient of ``sqrt(f + c)``.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: from ``step``, where the loss is not given.
        NonFiniteError: from ``step``, where the loss plus c is not positive. Nothing has changed then.

    Source: Liu, Nurbekyan, Tian, Yang, "Adaptive preconditioned gradient descent with energy", 2023, Algorithm 1.

    >>> import torch
    >>> from covector.optim import Simplex
    >>> p = torch.nn.Parameter(torch.full((3,), 1 / 3))
    >>> optimizer = AEPG([p], lr=0.5, metric=Simplex())
    >>> for _ in range(20):
    ...     loss = (p - torch.tensor([0.7, 0.2, 0.1])).square().sum()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step(loss=loss.detach())
    >>> round(p.sum().item(), 5), bool(loss < 0.05)
    (1.0, True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        c: float = 1.0,
        metric: Metric | None = None,
        restart: float = 0.0,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        self.rule = EnergyStep(c, metric, restart)
        slots = Slots(COVECTOR, maps=(self.rule,), scales=(self.rule,))
        super().__init__(params, slots, lr, weight_decay=weight_decay, **{"decoupled": False, **options})

    @property
    def energy(self) -> float:
        """The energy r now; NaN before the first step."""
        shared: Mapping[str, Any] = self.state.get("shared", {})  # type: ignore[call-overload]
        return float(shared.get("energy", math.nan))

    @property
    def ratio(self) -> float:
        """``r / sqrt(f + c)`` in the last step."""
        return self.rule.ratio

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        _check_capturable(group)


def _check_constant(c: float) -> None:
    if not math.isfinite(c):
        raise ArgumentError("c", c, "a finite number, such that the loss plus c is positive")


def _check_capturable(group: Mapping[str, Any]) -> None:
    if group["capturable"]:
        raise UnsupportedError("an energy is a number of the loss, which a CUDA graph cannot hold; capturable=False")
