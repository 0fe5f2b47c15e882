"""PSGD: gradients preconditioned by a matrix that is fitted on a Lie group while training goes on.

With ``m`` the mean or the exponential average of the gradients so far, and P of :mod:`covector.optim.hessian_fitter`::

    P <- P moved by the pair (v, g), v ~ N(0, I), to whiten, or by (v, Hv)
    w <- w - lr P m

No line search, no damping of the inverse, no eigendecomposition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError
from covector.optim.checks import check_fractions
from covector.optim.finite import Finite
from covector.optim.hessian_fitter import check_fit, make_fit
from covector.optim.optimizer import Optimizer, Params
from covector.optim.psgd_step import PSGDStep
from covector.optim.rule import Rule
from covector.optim.sgd import heavy_ball
from covector.optim.slots import Slots, Transform
from covector.optim.update_schedule import Share, share_at
from covector.random import check_seed

__all__ = ["PSGD"]


def mean_numbers(t: Any, group: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """The plain mean of the gradients until it is as long as the average: no bias, and no correction of one."""
    beta = min((int(t) - 1) / int(t), group["momentum"])
    return beta, 1 - beta, 0.0, 1.0


PLAIN = Rule(lambda g: (g,), (), lambda t, group: ())
MEAN = Rule(heavy_ball, ("momentum_buffer",), mean_numbers)


class PSGD(Optimizer):
    """Preconditioned SGD: whitens gradients, or takes Newton steps on the absolute value of the Hessian.

    Args:
        params: a module, parameters, or param groups; each group has a preconditioner of its own.
        lr: learning rate; default 1e-3 to whiten, 1e-2 with Newton's pairs (1 for problems without noise).
        momentum: of the average of gradients, default 0.9.
        weight_decay: strength, decoupled.
        structure: ``"kron"``: a factor for each axis of each tensor; ``"lra"``: a diagonal and a product of low rank
            for all; ``"dense"`` for problems of up to some thousand parameters; ``"diag"``.
        pair: ``"whiten"``: fit to gradients; ``"newton"``: to products with the Hessian: then ``step(closure)``.
        geometry: how factors move, see :class:`HessianFitter`; default ``"Q0.5EQ1.5"``.
        whiten: ``"grad"`` or ``"momentum"``: what is made white. The latter makes longer steps: lower the learning rate
            by ``sqrt((1 - momentum) / (1 + momentum))``.
        fit_lr: learning rate of the preconditioner; to be lowered to 0.01 towards the end for less noise.
        update_probability: share of the steps that fit it; a number, or a function of the step:
            :func:`fading_updates`.
        rank: of ``"lra"``.
        max_size: an axis longer than this has a diagonal factor.
        max_skew: so has one whose square is more than this times the tensor's elements; 0 makes all diagonal.
        merge: join neighboring axes while their product is at most this.
        scale: where Q starts; default: by the first gradients.
        damping: noise added to what is fitted.
        smoothing: of the running smoothness that sets the fit's rate.
        clip: bounds of the root mean square of a whitened tensor, and of its entries.
        clip_norm: bound of the norm of a group's direction with Newton's pairs.
        balance_every: steps from one balancing of factors to the next.
        seed: of what is drawn; processes that train together need the same.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: a value out of range; from ``step``, with Newton's pairs, where there is no closure.
        NonFiniteError: a step finds a gradient that is NaN or infinite. Nothing has changed then.

    Source: Pooladzandi and Li, "Curvature-informed SGD via general purpose Lie-group preconditioners", 2024; Li,
    "Preconditioned stochastic gradient descent", 2015.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    >>> optimizer = PSGD([p], lr=1.0, momentum=0.0, structure="dense", pair="newton", fit_lr=0.5)
    >>> for _ in range(100):
    ...     loss = optimizer.step(lambda: p[0] ** 2 + 100 * p[1] ** 2)
    >>> bool(loss < 1e-20)
    True
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        structure: str = "kron",
        pair: str = "whiten",
        geometry: str | None = None,
        whiten: str = "grad",
        fit_lr: float = 0.1,
        update_probability: Share = 1.0,
        rank: int = 10,
        max_size: float = math.inf,
        max_skew: float = 1.0,
        merge: int = 0,
        scale: float | None = None,
        damping: float = 1e-9,
        smoothing: float = 0.9,
        clip: tuple[float, float] = (2.0, 10.0),
        clip_norm: float = math.inf,
        balance_every: int = 100,
        seed: int = 0,
        transforms: Sequence[Transform] = (),
        **options: Any,
    ) -> None:
        _check_choices(pair, whiten, clip, clip_norm, balance_every)
        check_fit(fit_lr, damping, scale)
        check_seed(seed)
        share_at(update_probability, 1)
        newton = pair == "newton"
        step = PSGDStep(
            make_fit(structure, geometry, rank, max_size, max_skew, smoothing), structure != "kron", newton,
            whiten == "momentum", fit_lr, update_probability, scale, damping, clip, clip_norm, balance_every, merge,
            seed,
        )  # fmt: skip
        scales = (step,) if newton else ()
        slots = {
            "plain": Slots(PLAIN, maps=(step,), scales=scales),
            "momentum": Slots(MEAN, maps=(step,), scales=scales),
        }
        rate = (1e-2 if newton else 1e-3) if lr is None else lr
        options = {"momentum": momentum, **options}
        super().__init__(params, slots, rate, weight_decay=weight_decay, transforms=(Finite(), *transforms), **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        momentum = param_group.get("momentum", self.defaults["momentum"])
        param_group.setdefault("slots", "momentum" if momentum else "plain")
        super().add_param_group(param_group)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_fractions(group, "momentum")
        if group["capturable"]:
            raise UnsupportedError("what is drawn depends on the step, which a CUDA graph freezes; capturable=False")


def _check_choices(pair: str, whiten: str, clip: tuple[float, float], clip_norm: float, balance_every: int) -> None:
    if pair not in ("whiten", "newton"):
        raise ArgumentError("pair", pair, "'whiten' or 'newton'")
    if whiten not in ("grad", "momentum"):
        raise ArgumentError("whiten", whiten, "'grad' or 'momentum'")
    if not (len(clip) == 2 and all(value > 0.0 for value in clip)):
        raise ArgumentError("clip", clip, "two numbers above 0")
    if not clip_norm > 0.0:
        raise ArgumentError("clip_norm", clip_norm, "a number above 0")
    if balance_every < 1:
        raise ArgumentError("balance_every", balance_every, "a whole number of at least 1")
