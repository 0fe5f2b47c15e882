"""Shampoo: gradients preconditioned by inverse roots of their second moments, one for rows, one for columns.

With ``M = EMA(b1)(G) / (1 - b1^t)``, ``L``, ``R`` and the blocks of :mod:`covector.optim.kronecker`, and ``A`` the step
of a diagonal method (:mod:`covector.optim.grafting`)::

    S = L^(-1/4) M R^(-1/4),   w <- w - lr S ||A|| / ||S||

On one gradient ``S`` is its polar factor; with blocks of one element it is Adagrad.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.ema import CORRECTED
from covector.optim.grafting import Graft
from covector.optim.kronecker import Kronecker
from covector.optim.matrix import MatrixOptimizer, adam_options
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.shards import Shards
from covector.optim.slots import Slots

__all__ = ["DistributedShampoo", "Shampoo"]


class Shampoo(MatrixOptimizer):
    """Shampoo for hidden matrices and convolutions; AdamW for everything else.

    Args:
        params: a module (matrices are found by their roles), parameters, or param groups.
        lr: learning rate, default 1e-3, right for ``graft="adam"``.
        betas: decay of the averages of gradients and of their second moments; 1 for the latter sums them.
        eps: of the grafted method.
        weight_decay: strength, decoupled.
        block: matrices are cut into blocks of this size; None: not at all.
        graft: whose length a step has: ``"adam"``, ``"sgd"``, ``"adagrad"``, ``"rmsprop"``, or ``"none"``.
        refresh: steps from one renewal of the roots to the next.
        start: first step that is preconditioned, default ``refresh``; before it steps are the grafted method's.
        power: roots are inverse ``power``-th, default 4; 2 is sharper.
        root: how roots are found: ``"eigh"``, ``"newton"``, or ``"auto"``.
        ridge: added to the diagonal, in units of the largest eigenvalue; above 1e-6 for ``"newton"`` in float32.
        background: find roots in a thread while training goes on, for use from the next renewal on.
        shards: a process group that shares the roots (``"world"``: all processes); gradients must be the same there.
        adam_lr: learning rate of the other parameters; default: as the matrices.
        adam_betas: their averages; default ``betas``.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Gupta, Koren, Singer, "Shampoo: preconditioned stochastic tensor optimization", 2018; Anil et al.,
    "Scalable second order optimization for deep learning", 2020.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(2, 2))
    >>> p.grad = torch.tensor([[3.0, 0.0], [0.0, -0.5]])
    >>> Shampoo([p], lr=1.0, graft="none", refresh=1).update()[p].round(decimals=3)
    tensor([[-1.,  0.],
            [ 0.,  1.]])
    """

    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        block: int | None = 1024,
        graft: str = "adam",
        refresh: int = 20,
        start: int | None = None,
        power: int = 4,
        root: str = "auto",
        ridge: float = 1e-6,
        background: bool = False,
        shards: Any = None,
        adam_lr: float | Tensor | None = None,
        adam_betas: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        start = refresh if start is None else start
        self.graft = graft
        self.roots = Kronecker(block, refresh, start, power, root, ridge, background, Shards(shards))
        others = adam_betas or (betas[0], min(betas[1], 0.999))
        super().__init__(
            params,
            Slots(CORRECTED, maps=(self.roots, Graft(graft, start))),
            lr,
            adam_options(adam_lr, others, eps, None),
            weight_decay=weight_decay,
            betas=betas,
            eps=eps,
            **options,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        b1, b2 = group["betas"]
        if not (0.0 <= b1 < 1.0 and 0.0 < b2 <= 1.0):
            raise ArgumentError("betas", group["betas"], "the first in [0, 1), the second in (0, 1]")
        if b2 == 1.0 and self.graft in ("adam", "rmsprop"):
            raise ArgumentError("betas", group["betas"], f"the second below 1 with graft={self.graft!r}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; roots that were being computed are forgotten, and begun anew where they are due."""
        super().load_state_dict(state_dict)
        self.roots.jobs.clear()


class DistributedShampoo(Shampoo):
    """Shampoo whose roots are shared among all processes and found in the background.

    Without ``torch.distributed`` initialized, it is Shampoo with background roots in one process.

    Args:
        params: a module (matrices are found by their roles), parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the averages of gradients and of their second moments.
        shards: the process group, default all processes.
        background: find roots in a thread, default true.
        options: as for :class:`Shampoo`.

    Source: Anil et al., "Scalable second order optimization for deep learning", 2020; Shi et al., "A distributed
    data-parallel PyTorch implementation of the distributed Shampoo optimizer", 2023.

    >>> import torch
    >>> DistributedShampoo([torch.nn.Parameter(torch.zeros(2, 2))]).roots.background
    True
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        shards: Any = "world",
        background: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, shards=shards, background=background, **options)
