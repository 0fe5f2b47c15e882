"""Muon and its relatives: the polar factor of the momentum, its noise scaled or not.

With ``M = EMA(mu)(G)``, ``N = (1 - mu) G + mu M`` (Nesterov) or ``M``, and ``O = msign(N)``::

    Muon      O
    AdaMuon   O / (sqrt(EMA(b2)(O^2)) + eps)
    NorMuon   the same with the mean of a row's squares, then as long as O
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.optim.checks import check_fractions, check_nonnegative
from covector.optim.ema import MOMENTUM
from covector.optim.lmo import LMO, Width
from covector.optim.matrix import MatrixOptimizer, adam_options
from covector.optim.norms import Spectral
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.slots import Map, Scale, Slots
from covector.optim.variance import Variance

__all__ = ["AdaMuon", "Muon", "NorMuon"]


class Muon(MatrixOptimizer):
    """Muon: momentum, orthogonalized, for hidden matrices and convolutions; AdamW for everything else.

    Args:
        params: a module (matrices are found by their roles), parameters, or param groups.
        lr: learning rate of the matrices, default 0.02.
        momentum: decay of the average.
        weight_decay: of the matrices, decoupled.
        nesterov: look ahead.
        scale: by shape, see :class:`~covector.optim.lmo.Width`: ``"spectral"``, ``"rms"`` (learning rates as for
            Adam) or ``"none"``.
        variance: divide by the root of an average of squares: ``"none"``, ``"full"``, ``"lowrank"`` or ``"rows"``.
        rescale: length after that, see :class:`~covector.optim.variance.Variance`.
        beta2: decay of the average of squares.
        eps: added to its root.
        method: of :func:`covector.linalg.msign`; default ``"auto"``: Newton-Schulz, and for large matrices on a CPU
            what is faster there, which differs between processors. Name a method for equal results everywhere.
        steps: of the iteration.
        scales: further scale rules of the matrices.
        adam_lr: learning rate of the other parameters, default 3e-4; None: as the matrices.
        adam_betas: their averages.
        adam_eps: added to their root.
        adam_weight_decay: theirs, default 0.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 5))
    >>> optimizer = Muon(model, lr=0.02)
    >>> model(torch.tensor([1, 2])).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = True,
        scale: str = "spectral",
        variance: str = "none",
        rescale: str = "none",
        beta2: float = 0.95,
        eps: float = 1e-8,
        method: str = "auto",
        steps: int | None = None,
        scales: Sequence[Scale] = (),
        adam_lr: float | Tensor | None = 3e-4,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-10,
        adam_weight_decay: float | None = 0.0,
        **options: Any,
    ) -> None:
        maps: tuple[Map, ...] = (LMO(Spectral(method, steps)),)
        if variance != "none":
            maps = (*maps, Variance(variance, rescale))
            options = {"beta2": beta2, "eps": eps, **options}
        super().__init__(
            params,
            Slots(MOMENTUM, maps=maps, scales=(Width(scale), *scales)),
            lr,
            adam_options(adam_lr, adam_betas, adam_eps, adam_weight_decay),
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            **options,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        check_fractions(group, "momentum", *(["beta2"] if "beta2" in group else []))
        if "eps" in group:
            check_nonnegative(group, "eps")


class AdaMuon(Muon):
    """Muon with a second moment of the orthogonalized momentum.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, of the size of Adam's, default 1e-3.
        momentum: decay of the average.
        weight_decay: of the matrices, decoupled.
        variance: what is kept of the squares: ``"full"``, ``"lowrank"`` or ``"rows"``.
        scale: by shape; the division undoes it unless it is ``"none"``, the default.
        adam_lr: learning rate of the other parameters; default: as the matrices.
        options: as for :class:`Muon`; ``rescale="rms"`` is AdaMuon as first published.

    Source: Frans, Levine, Abbeel, "What really matters in matrix-whitening optimizers?", 2025; Si et al., "AdaMuon",
    2025.

    >>> import torch
    >>> AdaMuon([torch.nn.Parameter(torch.zeros(2, 2))], variance="lowrank").defaults["lr"]
    0.001
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        variance: str = "full",
        scale: str = "none",
        adam_lr: float | Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, momentum, weight_decay, variance=variance, scale=scale, adam_lr=adam_lr, **options)


class NorMuon(Muon):
    """Muon whose rows are divided by the root of their mean square, the length of the whole kept.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, default 0.02.
        momentum: decay of the average.
        weight_decay: of the matrices, decoupled.
        variance: what is kept of the squares, default ``"rows"``.
        rescale: the length afterwards, default that of the orthogonalized momentum.
        options: as for :class:`Muon`.

    Source: Li et al., "NorMuon: making Muon more efficient and scalable", 2025.

    >>> import torch
    >>> NorMuon([torch.nn.Parameter(torch.zeros(2, 2))]).defaults["beta2"]
    0.95
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        variance: str = "rows",
        rescale: str = "norm",
        **options: Any,
    ) -> None:
        super().__init__(params, lr, momentum, weight_decay, variance=variance, rescale=rescale, **options)
