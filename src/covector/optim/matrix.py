"""The common part of optimizers of matrices: matrices by one composition, all other parameters by AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from covector.optim.adam import ADAM
from covector.optim.checks import check_fractions, check_nonnegative
from covector.optim.finite import Finite
from covector.optim.optimizer import Optimizer, Params
from covector.optim.roles import Roles, grouped
from covector.optim.slots import Slots, Transform

__all__ = ["MatrixOptimizer", "adam_options"]

OTHERS = "adamw"


def adam_options(
    lr: float | Tensor | None, betas: tuple[float, float], eps: float, weight_decay: float | None
) -> dict[str, Any]:
    """The hyperparameters of the parameters that are no matrices; None: as the matrices have.

    >>> adam_options(None, (0.9, 0.99), 1e-8, 0.0)
    {'betas': (0.9, 0.99), 'eps': 1e-08, 'weight_decay': 0.0}
    """
    given = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    return {name: value for name, value in given.items() if value is not None}


class MatrixOptimizer(Optimizer):
    """Hidden matrices and convolutions by one composition of slots, the rest by AdamW.

    Of a module, roles tell what is what; of plain parameters, those with two dimensions or more are matrices. A param
    group that says ``slots="matrix"`` or ``slots="adamw"`` is taken at its word.

    Args:
        params: a module, its :func:`~covector.optim.roles`, parameters, or param groups.
        slots: how matrices step.
        lr: learning rate of the matrices.
        rest: hyperparameters of all other parameters, see :func:`adam_options`.
        transforms: of the gradients of the whole model.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        NonFiniteError: a step finds a gradient of a matrix that is NaN or infinite. Nothing has changed then.

    >>> from covector.optim.ema import MOMENTUM
    >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3), nn.Linear(3, 5))
    >>> rest = adam_options(1e-3, (0.9, 0.99), 1e-8, 0.0)
    >>> optimizer = MatrixOptimizer(model, Slots(MOMENTUM), 0.1, rest, momentum=0.9)
    >>> [(group["slots"], len(group["params"])) for group in optimizer.param_groups]
    [('matrix', 1), ('adamw', 4)]
    """

    def __init__(
        self,
        params: Params | Roles,
        slots: Slots,
        lr: float | Tensor,
        rest: Mapping[str, Any],
        *,
        transforms: Sequence[Transform] = (),
        **options: Any,
    ) -> None:
        self.rest = {**rest, "slots": OTHERS}
        compositions = {"matrix": slots, OTHERS: Slots(ADAM)}
        super().__init__(self.split(params, {}), compositions, lr, transforms=(Finite(), *transforms), **options)

    def split(self, params: Any, own: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Param groups of parameters that come together, with hyperparameters of their own."""
        if not isinstance(params, (nn.Module, Roles)):
            given = list(params)
            if given and isinstance(given[0], dict):
                return given
            params = given
        return grouped(params, {"slots": "matrix", **own}, {**self.rest, **own})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; where the group does not name its slots, matrices and others become groups of their own."""
        if "slots" in param_group:
            super().add_param_group(param_group)
            return
        own = {key: value for key, value in param_group.items() if key != "params"}
        params = param_group["params"]
        for group in self.split([params] if isinstance(params, Tensor) else params, own):
            super().add_param_group(group)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["slots"] == OTHERS:
            check_fractions(group, "betas")
            check_nonnegative(group, "eps")
