"""Terms beside the loss that a trust-region step in the max norm minimizes exactly, coordinate by coordinate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.slots import Bucket

__all__ = ["Lasso", "LassoStep"]


@dataclass(frozen=True)
class Lasso:
    """``strength * ||x||_1``: coordinates whose slope is smaller than the strength go to zero, and stay there.

    Args:
        strength: at least 0.

    Raises:
        ArgumentError: a negative strength.

    >>> Lasso(0.1).strength
    0.1
    """

    strength: float

    def __post_init__(self) -> None:
        if not self.strength >= 0.0:
            raise ArgumentError("strength", self.strength, "a number of at least 0")


class LassoStep:
    """Slot 4: the direction to ``argmin <m, x> + strength ||x||_1`` over ``|x_i - center_i| <= lr``.

    Args:
        strength: of the 1-norm.

    >>> import torch
    >>> p = torch.tensor([0.5, 0.05])
    >>> bucket = Bucket({"lr": 0.1, "weight_decay": 0.0, "decoupled": True}, None, [p], [], [{}], 1)
    >>> LassoStep(1.0)(bucket, [torch.tensor([-2.0, 0.5])], [])
    [tensor([-1.0000,  0.5000])]
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        lr, group = float(bucket.group["lr"]), bucket.group
        keep = 1.0 - lr * group["weight_decay"] if group["decoupled"] else 1.0
        return [self._solve(m, keep * p.to(m.dtype), lr) for m, p in zip(directions, bucket.params, strict=True)]

    def _solve(self, m: Tensor, center: Tensor, lr: float) -> Tensor:
        home = center.clamp(-lr, lr) / lr if lr > 0.0 else center.sign()
        return m.sign().where(m.abs() > self.strength, home)
