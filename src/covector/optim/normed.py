"""The common part of optimizers that choose a norm for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.optim.finite import Finite
from covector.optim.layer_norms import layouts
from covector.optim.norms import RMS2RMS, MatrixNorm
from covector.optim.optimizer import Optimizer, Params
from covector.optim.roles import Roles
from covector.optim.slots import Slots, Transform

__all__ = ["NormOptimizer"]


class NormOptimizer(Optimizer):
    """Parameters grouped by the norm they are measured in; each norm has its own composition of slots.

    Args:
        params: a module, its :func:`~covector.optim.roles`, parameters, or param groups; a group may name a ``norm``.
        norm: ``"auto"`` (by role, as :func:`~covector.optim.auto_norms`; of plain parameters, by dimensions), or one
            norm for all matrices. A vector is a matrix of one row.
        compose: how parameters step in a norm.
        lr: learning rate.
        method: of polar factors in automatic norms, see :class:`~covector.optim.Spectral`.
        transforms: of the gradients of the whole model.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: what is given for ``norm`` is none.
        NonFiniteError: a step finds a gradient that is NaN or infinite. Nothing has changed then.

    >>> from covector.optim.ema import MOMENTUM
    >>> from covector.optim.lmo import LMO
    >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3, bias=False), nn.Linear(3, 5, bias=False))
    >>> optimizer = NormOptimizer(model, "auto", lambda norm: Slots(MOMENTUM, maps=(LMO(norm),)), 0.1, momentum=0.9)
    >>> [group["slots"].split("(")[0] for group in optimizer.param_groups]
    ['ColNorm', 'RMS2RMS', 'RowNorm']
    """

    def __init__(
        self,
        params: Params | Roles,
        norm: str | MatrixNorm,
        compose: Callable[[MatrixNorm], Slots],
        lr: float | Tensor,
        *,
        method: str = "auto",
        transforms: Sequence[Transform] = (),
        **options: Any,
    ) -> None:
        self.norm, self.method, self.compose = checked(norm), method, compose
        first = RMS2RMS(method) if isinstance(self.norm, str) else self.norm
        self.norms: dict[str, MatrixNorm] = {repr(first): first}
        whole = isinstance(params, (nn.Module, Roles))
        given: Any = self.split(params, {}) if whole else params
        super().__init__(given, {repr(first): compose(first)}, lr, transforms=(Finite(), *transforms), **options)

    def split(self, params: Any, own: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Param groups of parameters with the same norm and layout."""
        norm = checked(own.get("norm", self.norm))
        rest = {key: value for key, value in own.items() if key != "norm"}
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for layout in layouts(params, self.method):
            chosen = layout.norm if isinstance(norm, str) else norm
            self.norms.setdefault(repr(chosen), chosen)
            entry = {"slots": repr(chosen), "blocks": layout.blocks, "transposed": layout.transposed, **rest}
            groups.setdefault(tuple(map(str, entry.values())), {"params": [], **entry})["params"].append(layout.param)
        return list(groups.values())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; where the group does not name its slots, those of each norm become a group of their own."""
        if "slots" in param_group:
            name = param_group["slots"]
            if name in self.norms and name not in self.slots:
                self.slots[name] = self.compose(self.norms[name])
            super().add_param_group(param_group)
            return
        own = {key: value for key, value in param_group.items() if key != "params"}
        params = param_group["params"]
        for group in self.split([params] if isinstance(params, Tensor) else list(params), own):
            self.add_param_group(group)


def checked(norm: Any) -> str | MatrixNorm:
    """A norm, or ``"auto"``."""
    if isinstance(norm, MatrixNorm) or norm == "auto":
        return norm  # type: ignore[no-any-return]
    raise ArgumentError("norm", norm, "'auto' or a norm of matrices, such as covector.optim.Spectral()")
