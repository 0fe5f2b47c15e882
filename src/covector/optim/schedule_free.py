"""Schedule-free training: a running average of the iterates instead of a learning rate that falls.

Three sequences: z steps, x averages z, and the gradient is taken at y between them::

    y = (1 - beta) z + beta x        z <- z - lr d(y)        x <- (1 - c_t) x + c_t z

with ``c_t`` the share of step t in all weights so far. The parameters are y while training; evaluate at x. Only the
lag ``e = x - z`` is kept: ``y + (1 - beta) e`` is x, and ``y - beta e`` is z.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from covector.errors import ArgumentError
from covector.optim.checks import check_nonnegative
from covector.optim.optimizer import Optimizer, Updates
from covector.optim.wrapper import Wrapper

__all__ = ["ScheduleFree"]


class ScheduleFree(Wrapper):
    """Average the iterates of an optimizer such that no learning-rate schedule is needed.

    Around ``AdamW(params, betas=(0.0, 0.999))`` it is schedule-free AdamW: the averaging takes the momentum's place.
    A warm-up of the learning rate is still worth having.

    Args:
        optimizer: without momentum of its own.
        beta: where the gradient is taken between z (0) and x (1), default 0.9.
        power: step t has the weight ``t^power * lr_max^2`` in the average, default 0; lr_max is the largest learning
            rate so far.

    Raises:
        ArgumentError: beta outside (0, 1), or a negative power.

    Source: Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky, "The road less scheduled", 2024, Algorithm 1.

    >>> import torch
    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = ScheduleFree(SGD([p], lr=1.0), beta=0.5)
    >>> for _ in range(3):
    ...     p.grad = -torch.ones(1)
    ...     optimizer.step()
    >>> with optimizer.averaged():
    ...     print(p.item())  # the mean of 1, 2 and 3
    2.0
    """

    def __init__(self, optimizer: Optimizer | Wrapper, beta: float = 0.9, power: float = 0.0) -> None:
        if not 0.0 < beta < 1.0:
            raise ArgumentError("beta", beta, "a number in (0, 1)")
        check_nonnegative({"power": power}, "power")
        super().__init__(optimizer)
        self.beta, self.power = beta, power

    def transform(self, updates: Updates) -> Updates:
        rates = {param: float(group["lr"]) for group in self.param_groups for param in group["params"]}
        changed: Updates = {}
        for param, update in updates.items():
            state = self.state[param]
            peak = max(state.get("peak_rate", 0.0), rates[param])
            seen = state.get("averaged_steps", 0) + 1
            weight = seen**self.power * peak**2
            total = state.get("total_weight", 0.0) + weight
            share = weight / total if total else 0.0
            state["peak_rate"], state["averaged_steps"], state["total_weight"] = peak, seen, total
            step = update.to(self.precise(param).dtype)
            lag = state.get("lag")
            new = (1.0 - share) * (-step if lag is None else lag - step)
            moved = step + self.beta * (new if lag is None else new - lag)
            state["lag"] = new
            changed[param] = moved.to(param.dtype)
        return changed

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Parameters at the average x for as long as the block lasts."""
        values = {
            p: self.precise(p) + (1.0 - self.beta) * self.state[p]["lag"]
            for group in self.param_groups
            for p in group["params"]
            if "lag" in self.state[p]
        }
        with self.swapped(values):
            yield
