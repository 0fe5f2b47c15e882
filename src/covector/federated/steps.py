"""Server steps: what an averaged gradient of N numbers becomes. Plain float64 on the server.

``sgd``: ``u = g``. ``momentum``: ``m <- beta1 m + g, u = m``. ``adam``: ``m <- beta1 m + (1 - beta1) g``,
``v <- beta2 v + (1 - beta2) g^2``, ``u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)``. The
displacement is ``-lr u``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from covector.federated.header import RunHeader

__all__ = ["Moments", "direction"]


@dataclass(frozen=True)
class Moments:
    """The state of a server step.

    Args:
        first: m, float64 ``[N]``.
        second: v, float64 ``[N]``.
        count: steps taken.
    """

    first: Tensor
    second: Tensor
    count: int = 0

    @classmethod
    def zero(cls, size: int) -> Moments:
        """Before the first step."""
        return cls(torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))


def direction(header: RunHeader, moments: Moments, gradient: Tensor) -> tuple[Tensor, Moments]:
    """``(u, new moments)`` for the averaged gradient, float64 ``[N]``.

    >>> from covector import SketchPool
    >>> header = RunHeader("00" * 32, SketchPool(1, 2), 0.1, method="sketch", ids="derived", server_step="adam")
    >>> direction(header, Moments.zero(2), torch.tensor([3.0, -0.5], dtype=torch.float64))[0]
    tensor([ 1.0000, -1.0000], dtype=torch.float64)
    """
    beta1, beta2 = header.betas
    count = moments.count + 1
    if header.server_step == "sgd":
        return gradient, Moments(moments.first, moments.second, count)
    if header.server_step == "momentum":
        first = moments.first * beta1 + gradient
        return first, Moments(first, moments.second, count)
    first = moments.first * beta1 + gradient * (1 - beta1)
    second = moments.second * beta2 + gradient * gradient * (1 - beta2)
    root = (second / (1 - beta2**count)).sqrt() + header.adam_eps
    return first / (1 - beta1**count) / root, Moments(first, second, count)
