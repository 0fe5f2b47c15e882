"""Adam in a subspace of the gradients: low memory for the matrices of a model, plain Adam for the rest.

For a matrix ``[m, n]`` and rank r the states are ``m r + 2 r n`` numbers instead of ``2 m n``. The presets differ in
how the subspace is renewed and in what is done about its change (:mod:`covector.optim.subspace`)::

    GaLore      SVD of the gradient     moments kept as they are     the rest of the gradient is dropped
    GrassWalk   random geodesic step    moments transported (AO)     the rest is recovered (RS)
    GrassJump   random subspace         moments transported (AO)     the rest is recovered (RS)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.optim.adam import ADAM
from covector.optim.optimizer import Optimizer, Params
from covector.optim.roles import Roles, grouped
from covector.optim.slots import Slots
from covector.optim.subspace import GradientSubspace

__all__ = ["GaLore", "GrassJump", "GrassWalk", "SubspaceAdam"]


class SubspaceAdam(Optimizer):
    """Adam whose moments live in a subspace for matrices, and plain Adam for the other parameters.

    Args:
        params: a module, whose hidden matrices and convolutions get a subspace; or parameters or param groups, of
            which all tensors of two dimensions or more get one. A group with ``slots="adam"`` gets none.
        lr: learning rate of the matrices, default 1e-2.
        adam_lr: learning rate of the other parameters, default as ``lr``.
        rank: dimensions of the subspace, default 128.
        interval: steps between renewals, default 200.
        angle: radians of a geodesic step.
        growth: by how much the part outside the subspace may grow in a step.
        betas: decay of the two averages.
        eps: added to the root, default 1e-6.
        weight_decay: strength, decoupled by default.
        seed: of random subspaces.
        options: ``update``: ``"svd"`` (the default), ``"walk"``, ``"jump"`` or ``"track"``, see
            :class:`GradientSubspace`; ``adaptive``: transport the moments at a renewal, default true; ``recover``: add
            what lies outside the subspace, default true; ``scale``: factor of the part inside, default 1; and those of
            :class:`~covector.optim.Optimizer`. What a preset fixes in ``preset`` are defaults of these.

    Raises:
        ArgumentError: a hyperparameter out of range, or ``capturable``, since a renewal is the host's decision.

    Source: Rajabi et al., "Randomized gradient subspaces for efficient large language model training", 2025.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> optimizer = SubspaceAdam(model, rank=2, update="track", interval=50, adam_lr=1e-3)
    >>> [(group["slots"], group["lr"], len(group["params"])) for group in optimizer.param_groups]
    [('subspace', 0.01, 1), ('adam', 0.001, 3)]
    """

    preset: ClassVar[dict[str, Any]] = {"update": "svd", "adaptive": True, "recover": True, "scale": 1.0}

    fractions = ("betas",)
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        adam_lr: float | Tensor | None = None,
        rank: int = 128,
        interval: int = 200,
        *,
        angle: float = 0.3,
        growth: float = 1.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        chosen = {name: options.pop(name, value) for name, value in self.preset.items()}
        basis = GradientSubspace(rank, interval=interval, angle=angle, growth=growth, seed=seed, **chosen)
        rest = {"slots": "adam", "lr": lr if adam_lr is None else adam_lr}
        super().__init__(
            _groups(params, rest), {"subspace": Slots(ADAM, basis=basis), "adam": Slots(ADAM)}, lr,
            betas=betas, eps=eps, weight_decay=weight_decay, **options,
        )  # fmt: skip

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["capturable"] and group["slots"] == "subspace":
            raise ArgumentError("capturable", True, "False: the host decides when a subspace is renewed")


class GrassWalk(SubspaceAdam):
    """Adam in a subspace that takes a random geodesic step every ``interval`` steps.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, default 1e-2.
        adam_lr: learning rate of the other parameters, default as ``lr``.
        rank: dimensions of the subspace, default 128.
        interval: steps between renewals, default 200.
        options: as for :class:`SubspaceAdam`, which this is with ``update="walk"``.

    Source: Rajabi et al., "Randomized gradient subspaces for efficient large language model training", 2025.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(4, 6))
    >>> p.grad = torch.ones(4, 6)
    >>> GrassWalk([p], lr=0.1, rank=1).step()
    >>> bool((p < 0).all())
    True
    """

    preset: ClassVar[dict[str, Any]] = SubspaceAdam.preset | {"update": "walk"}


class GrassJump(SubspaceAdam):
    """Adam in a subspace that is drawn anew, at random, every ``interval`` steps; needs no SVD after the first.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, default 1e-2.
        adam_lr: learning rate of the other parameters, default as ``lr``.
        rank: dimensions of the subspace, default 128.
        interval: steps between renewals, default 200.
        options: as for :class:`SubspaceAdam`, which this is with ``update="jump"``.

    Source: Rajabi et al., "Randomized gradient subspaces for efficient large language model training", 2025.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(4, 6))
    >>> p.grad = torch.ones(4, 6)
    >>> GrassJump([p], lr=0.1, rank=1).step()
    >>> bool((p < 0).all())
    True
    """

    preset: ClassVar[dict[str, Any]] = SubspaceAdam.preset | {"update": "jump"}


class GaLore(SubspaceAdam):
    """Adam in the span of the leading singular vectors of the gradient, renewed every ``interval`` steps.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate of the matrices, default 1e-2.
        adam_lr: learning rate of the other parameters, default as ``lr``.
        rank: dimensions of the subspace, default 128.
        interval: steps between renewals, default 200.
        options: as for :class:`SubspaceAdam`, which this is with ``update="svd"``, moments kept as they are, nothing
            recovered, and ``scale=0.25``.

    Source: Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection", 2024, Algorithm 2.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(4, 6))
    >>> p.grad = torch.ones(4, 6)
    >>> GaLore([p], lr=0.1, rank=1).step()
    >>> bool((p < 0).all())
    True
    """

    preset: ClassVar[dict[str, Any]] = {"update": "svd", "adaptive": False, "recover": False, "scale": 0.25}


def _groups(params: Any, rest: dict[str, Any]) -> Any:
    """Param groups by role, unless groups are given."""
    if isinstance(params, (nn.Module, Roles)):
        return grouped(params, {}, rest)
    given = list(params)
    return given if given and isinstance(given[0], dict) else grouped(given, {}, rest)
