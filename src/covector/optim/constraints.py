"""Sets that parameters must stay in: projections after the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Box"]


@dataclass(frozen=True)
class Box:
    """All coordinates between two bounds.

    The nearest point of a box is the same in every diagonal metric, so this is also the projection in the norm of
    ``sqrt(v)`` that the analysis of AMSGrad asks for.

    Args:
        lower: least value; ``-math.inf`` for none.
        upper: greatest value.

    Raises:
        ArgumentError: the box is empty.

    >>> import torch
    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.tensor([0.9]))
    >>> p.grad = torch.tensor([-1.0])
    >>> SGD([p], lr=1.0, constraint=Box(-1.0, 1.0)).step(); p.item()
    1.0
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise ArgumentError("upper", self.upper, f"at least lower={self.lower}")

    def project_(self, params: Sequence[Tensor]) -> None:
        """Clamp each tensor in place."""
        for param in params:
            param.clamp_(self.lower, self.upper)
