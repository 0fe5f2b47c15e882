"""A framework's own loss computation as an objective, so that an estimator may evaluate it where it likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from covector.objective import Objective

__all__ = ["objective_of"]


class _Closure(nn.Module):
    """Calls ``compute`` instead of the module it holds; the module's parameters are its own."""

    def __init__(self, module: nn.Module, compute: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.compute = compute
        self.training = module.training

    def forward(self, batch: Any) -> Tensor:
        # a computation may take items out of its batch, and a probe needs the batch again
        return self.compute(dict(batch) if isinstance(batch, Mapping) else batch)


def objective_of(module: nn.Module, compute: Callable[[Any], Tensor]) -> Objective:
    """``compute(batch)``, which uses ``module``, as a function of the module's trainable parameters.

    Args:
        module: the module whose parameters count; by the names it has for them.
        compute: gives the scalar loss of a batch.

    Returns:
        An objective for batches of the form ``(batch, None)``.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> objective = objective_of(layer, lambda batch: layer(batch["x"]).sum())
    >>> list(objective.params), objective(({"x": torch.ones(1, 2)}, None)).shape
    (['weight', 'bias'], torch.Size([]))
    """
    return Objective(_Closure(module, compute), lambda loss, _: loss, prefix="module.")
