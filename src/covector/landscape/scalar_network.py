"""Scalar networks, the product of their weights: the smallest model at the edge of stability, solved in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["ScalarNetwork"]


class ScalarNetwork:
    """``L(w) = (w_1 w_2 ... w_D - y)^2 / 2``, for any number of weight vectors ``[..., D]`` at once.

    Gradient flow conserves ``w_i^2 - w_j^2``, so that its end is known: ``sign(w_i) sqrt(w_i^2 + c)`` with the one c
    that makes the product y. The Hessian at a minimum is ``v v^T`` with ``v_i = y / w_i``.

    Args:
        target: y, positive (default 1).

    Source: Kreisler, Nacson, Soudry, Carmon (ICML 2023), sections 3 and 4.

    >>> network = ScalarNetwork()
    >>> w = torch.tensor([2.0, 0.25], dtype=torch.float64)
    >>> round(network.solution(w).prod().item(), 9), round(network.solution_sharpness(w).item(), 4)
    (1.0, 4.4163)
    """

    def __init__(self, target: float = 1.0) -> None:
        if not 0.0 < target < float("inf"):
            raise ArgumentError("target", target, "a positive number")
        self.target = target

    def loss(self, w: Tensor) -> Tensor:
        """``[...]``."""
        return (w.prod(-1) - self.target).square() / 2

    def gradient(self, w: Tensor) -> Tensor:
        """``[..., D]``; no weight may be zero."""
        product = w.prod(-1, keepdim=True)
        return (product - self.target) * product / w

    def step(self, w: Tensor, lr: float | Tensor) -> Tensor:
        """One step of gradient descent; ``lr`` is a number or ``[...]``."""
        return w - torch.as_tensor(lr, dtype=w.dtype)[..., None] * self.gradient(w)

    def solution(self, w: Tensor, steps: int = 100) -> Tensor:
        """Where gradient flow from ``w`` ends, ``[..., D]`` in float64, by bisection.

        Raises:
            ArgumentError: a product is not positive: the flow then need not end at a minimum.
        """
        if bool((w.prod(-1) <= 0).any()):
            raise ArgumentError("w", f"products down to {float(w.prod(-1).min()):.3g}", "positive products")
        squares = w.double().square()
        goal = 2 * torch.as_tensor(self.target, dtype=torch.float64).log()
        low = -squares.amin(-1)
        high = torch.full_like(low, max(self.target, 1.0) ** 2)  # then every square is at least the target's
        for _ in range(steps):
            middle = (low + high) / 2
            above = (squares + middle[..., None]).clamp_min(0.0).log().sum(-1) > goal
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return w.sign() * (squares + high[..., None]).sqrt()

    def solution_sharpness(self, w: Tensor) -> Tensor:
        """The sharpness of the gradient flow solution from ``w``, ``y^2 sum 1 / s_i^2``: ``[...]`` in float64."""
        return self.target**2 * (1 / self.solution(w).square()).sum(-1)
