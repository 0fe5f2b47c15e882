"""Slot 4: divide by the root of an average of squares, kept for each element, each row, or as an outer product.

Muon, which gives all singular directions the same size, knows no noise; a second moment of what it returns brings it
back (AdaMuon). An average for each row (NorMuon), or one for rows and one for columns (Adafactor), does nearly as well
for ``m`` or ``m + n`` numbers instead of ``m n``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.matrices import Stack, map_matrices
from covector.optim.norms import length
from covector.optim.slots import Bucket

__all__ = ["VARIANCES", "Variance", "advance_squares", "squares"]

VARIANCES = ("none", "full", "lowrank", "rows")
RESCALES = ("none", "norm", "rms")
States = list[dict[str, Any]]


def advance_squares(kind: str, stack: Stack, states: States, x: Tensor, beta: float) -> None:
    """Advance what is kept of ``EMA(beta)(x^2)``.

    Args:
        kind: ``"full"`` (state ``update_sq``), ``"rows"`` (``row_sq``) or ``"lowrank"`` (``row_sq``, ``column_sq``).
        stack: whose states these are.
        states: of the bucket.
        x: ``[batch, m, n]``.
        beta: decay of the average.
    """
    square = x * x
    means = {"update_sq": square} if kind == "full" else {"row_sq": square.mean(-1, keepdim=True)}
    if kind == "lowrank":
        means["column_sq"] = square.mean(-2, keepdim=True)
    for name, now in means.items():
        past = stack.read(states, name) if stack.known(states, name) else torch.zeros_like(now)
        stack.write(states, name, past * beta + now * (1 - beta))


def squares(kind: str, stack: Stack, states: States) -> Tensor:
    """The average of squares from what is kept of it, biased towards its start at zero.

    Returns:
        ``[batch, m, n]``, or ``[batch, m, 1]`` for rows. For ``"lowrank"`` it is ``outer(rows, columns) /
        mean(rows)``, exact where the squares have rank one.
    """
    if kind == "full":
        return stack.read(states, "update_sq")
    rows = stack.read(states, "row_sq")
    if kind == "rows":
        return rows
    columns = stack.read(states, "column_sq")
    return rows * columns / rows.mean(-2, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


class Variance:
    """``O / (sqrt(V / (1 - beta2^t)) + eps)`` of the direction ``O``, its length then put back if asked for.

    Reads ``beta2`` and ``eps`` from the param group.

    Args:
        kind: what is kept of ``V``: ``"full"``, ``"lowrank"`` or ``"rows"``.
        rescale: ``"norm"`` gives the result the length of ``O`` (NorMuon), ``"rms"`` makes its root mean square 0.2
            (AdaMuon as first published), ``"none"`` leaves it.

    Raises:
        ArgumentError: no such kind or rescaling.

    >>> bucket = Bucket({"beta2": 0.9, "eps": 1e-8}, None, [], [], [{}], 1)
    >>> Variance("full")(bucket, [torch.tensor([[2.0, -3.0]])], [])
    [tensor([[ 1., -1.]])]
    """

    def __init__(self, kind: str, rescale: str = "none") -> None:
        if kind not in VARIANCES[1:]:
            raise ArgumentError("variance", kind, "one of " + ", ".join(VARIANCES))
        if rescale not in RESCALES:
            raise ArgumentError("rescale", rescale, "one of " + ", ".join(RESCALES))
        self.kind, self.rescale = kind, rescale

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        return map_matrices(self._function(bucket), directions, bucket.group)

    def _function(self, bucket: Bucket) -> Callable[[Stack], Tensor]:
        beta, eps = bucket.group["beta2"], bucket.group["eps"]

        def divide(stack: Stack) -> Tensor:
            x = stack.matrices
            advance_squares(self.kind, stack, bucket.states, x, beta)
            root: Tensor = (squares(self.kind, stack, bucket.states) / (1 - beta**bucket.t)).sqrt()
            u: Tensor = x / (root + eps)
            if self.rescale == "none":
                return u
            target: Any = length(x, keepdim=True)
            if self.rescale == "rms":
                target = 0.2 * (x.shape[-2] * x.shape[-1]) ** 0.5
            rescaled: Tensor = u * (target / length(u, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny))
            return rescaled

        return divide
