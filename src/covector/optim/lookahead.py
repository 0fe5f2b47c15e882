"""Lookahead: fast weights explore for k steps, slow weights follow a part of the way."""

from __future__ import annotations

from covector.errors import ArgumentError
from covector.optim.optimizer import Optimizer, Updates
from covector.optim.wrapper import Wrapper

__all__ = ["Lookahead"]


class Lookahead(Wrapper):
    """Every k steps, go back to a point between the start of these steps and their end.

    ``slow <- slow + alpha (fast - slow)``, and the parameters continue from there.

    Args:
        optimizer: takes the fast steps.
        k: fast steps for each slow one, default 5.
        alpha: share of the way, default 0.5; 1 changes nothing.

    Raises:
        ArgumentError: k below 1, or alpha outside (0, 1].

    Source: Zhang, Lucas, Hinton, Ba, "Lookahead optimizer: k steps forward, 1 step back", 2019, Algorithm 1.

    >>> import torch
    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = Lookahead(SGD([p], lr=1.0), k=2, alpha=0.5)
    >>> for _ in range(4):
    ...     p.grad = -torch.ones(1)
    ...     optimizer.step()
    ...     print(p.item())
    1.0
    1.0
    2.0
    2.0
    """

    def __init__(self, optimizer: Optimizer | Wrapper, k: int = 5, alpha: float = 0.5) -> None:
        if not (isinstance(k, int) and k >= 1):
            raise ArgumentError("k", k, "a whole number of at least 1")
        if not 0.0 < alpha <= 1.0:
            raise ArgumentError("alpha", alpha, "a number in (0, 1]")
        super().__init__(optimizer)
        self.k, self.alpha = k, alpha

    def transform(self, updates: Updates) -> Updates:
        changed: Updates = {}
        for param, update in updates.items():
            state = self.state[param]
            fast = self.precise(param)
            if "slow" not in state:
                state["slow"], state["fast_steps"] = fast.clone(), 0
            state["fast_steps"] += 1
            if state["fast_steps"] % self.k:
                changed[param] = update
                continue
            state["slow"].lerp_(fast + update.to(fast.dtype), self.alpha)
            changed[param] = (state["slow"] - fast).to(param.dtype)
        return changed
