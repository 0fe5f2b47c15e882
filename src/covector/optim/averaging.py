"""Averages of the iterates: what is evaluated need not be where the last step ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from covector.optim.checks import check_fractions
from covector.optim.optimizer import Optimizer
from covector.optim.wrapper import Wrapper

__all__ = ["Averaged"]


class Averaged(Wrapper):
    """Keep an exponential average of the parameters beside them, to evaluate with.

    ``x_avg <- ((b - b^n) x_avg + (1 - b) x_n) / (1 - b^n)`` after step n: a weighted mean of the iterates whose weights
    sum to 1 from the first step on, so that the start leaves no trace. The parameters themselves are not touched.

    Args:
        optimizer: whose iterates are averaged.
        decay: b, default 0.999.

    Raises:
        ArgumentError: the decay is not in [0, 1).

    Source: the bias correction as in Zhang and Cutkosky 2024, Algorithm 1.

    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = Averaged(SGD([p], lr=1.0), decay=0.5)
    >>> for _ in range(2):
    ...     p.grad = -torch.ones(1)
    ...     optimizer.step()
    >>> with optimizer.averaged():
    ...     print(round(p.item(), 4))  # (1 * 1 + 2 * 2) / 3
    1.6667
    >>> p.item()
    2.0
    """

    def __init__(self, optimizer: Optimizer | Wrapper, decay: float = 0.999) -> None:
        check_fractions({"decay": decay}, "decay")
        super().__init__(optimizer)
        self.decay = decay

    @torch.no_grad()
    def apply(self, updates: Mapping[Tensor, Tensor]) -> None:
        """Add updates to their parameters, and take the result into the average."""
        self.inner.apply(updates)
        for param in updates:
            state = self.state[param]
            n = state.get("averaged_steps", 0) + 1
            weight = (1.0 - self.decay) / (1.0 - self.decay**n)
            x = self.precise(param)
            state["averaged_steps"] = n
            # the first has weight 1
            state["average"] = x.clone() if n == 1 else state["average"].lerp_(x, weight)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Parameters at their average for as long as the block lasts; those without one stay."""
        values = {
            p: self.state[p]["average"] for g in self.param_groups for p in g["params"] if "average" in self.state[p]
        }
        with self.swapped(values):
            yield
