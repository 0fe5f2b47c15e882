"""SOAP and SPlus: Adam, and the sign of the momentum, in the eigenbasis of Shampoo's statistics.

With ``G' = QL^T G QR`` and ``M' = EMA(b1)(G')`` in the basis of :mod:`covector.optim.eigenbasis`::

    SOAP    QL (mh' / (sqrt(vh') + eps)) QR^T,   v' = EMA(b2)(G'^2)
    SPlus   QL sign(M') QR^T * 2 / (m + n)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.adam import adam, adam_numbers
from covector.optim.checks import check_fractions
from covector.optim.eigenbasis import Eigenbasis
from covector.optim.ema import SIGNS, corrected_numbers
from covector.optim.lmo import Width
from covector.optim.matrix import MatrixOptimizer, adam_options
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.rule import Rule
from covector.optim.sgd import heavy_ball
from covector.optim.slots import Slots
from covector.optim.variance import VARIANCES

__all__ = ["SOAP", "SPlus"]


def since_second(t: Any) -> Any:
    """Steps whose gradient the rule has seen: the first one only makes the basis.

    >>> [since_second(t) for t in (1, 2, 3)]
    [1, 1, 2]
    """
    return t - 1 + (t < 2)


ROTATED_ADAM = Rule(adam, ("exp_avg", "exp_avg_sq"), lambda t, group: adam_numbers(since_second(t), group))
ROTATED_EMA = Rule(heavy_ball, ("exp_avg",), lambda t, group: corrected_numbers(since_second(t), group))


class SOAP(MatrixOptimizer):
    """SOAP: Adam in Shampoo's eigenbasis for hidden matrices and convolutions; AdamW for everything else.

    Args:
        params: a module (matrices are found by their roles), parameters, or param groups.
        lr: learning rate, default 3e-3.
        betas: decay of the averages of gradients and of their squares.
        eps: added to the root.
        weight_decay: strength, decoupled.
        refresh: steps from one basis to the next.
        method: of the refresh: ``"qr"``, one step of the power iteration, or ``"eigh"``.
        max_dim: a side longer than this is not rotated (one-sided SOAP); 0 is Adam.
        variance: squares kept in the basis: ``"full"``, ``"lowrank"`` or ``"rows"``.
        statistics_beta: decay of ``G G^T`` and ``G^T G``; default ``betas[1]``.
        adam_lr: learning rate of the other parameters; default: as the matrices.
        options: as for :class:`~covector.optim.Optimizer`.

    The first step makes the basis and moves nothing but the parameters that are no matrices.

    Source: Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024, Algorithms 3 and 4.

    >>> import torch
    >>> SOAP([torch.nn.Parameter(torch.zeros(2, 2))]).defaults["betas"]
    (0.95, 0.95)
    """

    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        refresh: int = 10,
        method: str = "qr",
        max_dim: int = 10_000,
        variance: str = "full",
        statistics_beta: float | None = None,
        adam_lr: float | Tensor | None = None,
        **options: Any,
    ) -> None:
        if variance not in VARIANCES[1:]:
            raise ArgumentError("variance", variance, "one of " + ", ".join(VARIANCES[1:]))
        full = variance == "full"
        basis = Eigenbasis(refresh, method, max_dim, "none" if full else variance)
        super().__init__(
            params,
            Slots(ROTATED_ADAM if full else ROTATED_EMA, basis=basis),
            lr,
            adam_options(adam_lr, betas, eps, None),
            weight_decay=weight_decay,
            betas=betas,
            eps=eps,
            statistics_beta=statistics_beta,
            **options,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_fractions(group, "betas", *([] if group["statistics_beta"] is None else ["statistics_beta"]))


class SPlus(MatrixOptimizer):
    """SPlus: the sign of the momentum in Shampoo's eigenbasis, for matrices; AdamW for everything else.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, default 0.1; it is divided by the mean of rows and columns.
        betas: decay of the averages of gradients, and of their second moments.
        weight_decay: strength, decoupled.
        refresh: steps from one basis to the next.
        method: of the refresh: ``"eigh"`` or ``"qr"``.
        max_dim: a side longer than this is not rotated; 0 is Signum.
        adam_lr: learning rate of the other parameters, default 1e-3.
        adam_eps: added to their root.
        options: as for :class:`~covector.optim.Optimizer`.

    The published method evaluates an average of the iterates: ``torch.optim.swa_utils.AveragedModel`` keeps one.

    Source: Frans, Levine, Abbeel, "A stable whitening optimizer for efficient neural network training", 2025.

    >>> import torch
    >>> SPlus([torch.nn.Parameter(torch.zeros(2, 2))]).defaults["betas"]
    (0.9, 0.999)
    """

    fractions = ("betas",)

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        *,
        refresh: int = 100,
        method: str = "eigh",
        max_dim: int = 10_000,
        adam_lr: float | Tensor | None = 1e-3,
        adam_eps: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            Slots(SIGNS, basis=Eigenbasis(refresh, method, max_dim), scales=(Width("splus"),)),
            lr,
            adam_options(adam_lr, betas, adam_eps, None),
            weight_decay=weight_decay,
            betas=betas,
            **options,
        )
