"""Where Adam goes the wrong way: convex problems of one variable, and the quantity that betrays it.

Adam's analysis needs the effective step ``alpha_t / sqrt(V_t)`` of every coordinate to fall: the increment
``sqrt(V_{t+1}) / alpha_{t+1} - sqrt(V_t) / alpha_t`` must not be negative. A rare large gradient is forgotten by an
exponential average, the effective step grows again, and many small steps in the wrong direction outweigh it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError
from covector.optim.constraints import Box
from covector.random import uniform

__all__ = ["Divergence", "StepGrowth", "adam_divergence", "effective_step_monotone"]


@dataclass(frozen=True)
class Divergence:
    """Losses ``f_t(x) = slope_t x`` on the box [-1, 1], with a rare large positive slope and small negative ones.

    Args:
        high: the rare slope.
        low: the others, negative.
        period: one slope in so many is high.
        betas: decays for which Adam goes to +1.
        chance: draw the high slope at random with chance ``1 / period`` instead of in turn.
        seed: of the draws.
    """

    high: float
    low: float
    period: int
    betas: tuple[float, float]
    chance: bool = False
    seed: int = 0
    box: Box = field(default_factory=lambda: Box(-1.0, 1.0))

    @property
    def mean(self) -> float:
        """Mean slope: positive, so that -1 is the best point.

        >>> adam_divergence(3.0).mean > 0
        True
        """
        return (self.high + (self.period - 1) * self.low) / self.period

    def slopes(self, steps: int, start: int = 0) -> Tensor:
        """Slopes of the steps ``start + 1 .. start + steps``: float64 ``[steps]``.

        >>> adam_divergence(3.0).slopes(4)
        tensor([ 3., -1., -1.,  3.], dtype=torch.float64)
        """
        if self.chance:
            rare = uniform(self.seed, steps, start=start) * self.period < 1.0
        else:
            rare = (torch.arange(start, start + steps) % self.period) == 0
        return torch.where(rare, self.high, self.low).double()

    def regret(self, points: Tensor, slopes: Tensor) -> Tensor:
        """Mean regret ``1/t sum (f_s(x_s) - f_s(-1))`` after each step, for ``points`` ``[steps]`` in order."""
        return (slopes * (points + 1.0)).cumsum(0) / torch.arange(1, len(slopes) + 1)


def adam_divergence(c: float = 3.0, problem: str = "theorem") -> Divergence:
    """A convex problem on which Adam converges to the worst point.

    Args:
        c: the high slope of ``"theorem"``, above 2; every third slope is c, the others are -1.
        problem: ``"theorem"`` (Theorem 1), ``"online"`` (1010 every 101 steps, else -10) or ``"stochastic"`` (1010
            with chance 0.01, else -10).

    Raises:
        ArgumentError: c is too small, or the problem is unknown.

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018, Theorem 1 and section 5.

    >>> from covector.optim import AMSGrad
    >>> problem = adam_divergence(3.0)
    >>> x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    >>> optimizer = AMSGrad(
    ...     [x], lr=0.3, betas=problem.betas, form="paper", sqrt_decay=True, constraint=problem.box
    ... )
    >>> for slope in problem.slopes(600):
    ...     x.grad = slope.reshape(1)
    ...     optimizer.step()
    >>> x.item() < -0.9
    True
    """
    if problem == "theorem":
        if not 2.0 < c < float("inf"):
            raise ArgumentError("c", c, "a finite number above 2")
        return Divergence(c, -1.0, 3, (0.0, 1.0 / (1.0 + c * c)))
    if problem == "online":
        return Divergence(1010.0, -10.0, 101, (0.9, 0.99))
    if problem == "stochastic":
        return Divergence(1010.0, -10.0, 100, (0.9, 0.99), chance=True)
    raise ArgumentError("problem", problem, "'theorem', 'online' or 'stochastic'")


# by which name optimizers, ours and torch's, keep what the root is taken of; the first that is there counts
_SECOND: Sequence[str] = ("max_exp_avg_sq", "exp_avg_sq", "sum", "square_avg")


class StepGrowth:
    """Watches the effective step of every coordinate; see :func:`effective_step_monotone`.

    Attributes:
        shares: for each step from the second, the share of coordinates whose effective step grew.

    >>> from covector.optim import RMSprop
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = RMSprop([p], alpha=0.5)
    >>> watch = StepGrowth(optimizer)
    >>> for slopes in ([1.0, 1.0], [1.0, 0.5]):
    ...     p.grad = torch.tensor(slopes)
    ...     optimizer.step()
    >>> watch.shares
    [0.5]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, tolerance: float = 1e-6) -> None:
        self.shares: list[float] = []
        self.tolerance = tolerance
        self._last: dict[Tensor, Tensor] = {}
        self._handle: Any = optimizer.register_step_post_hook(self._look)

    @property
    def worst(self) -> float:
        """The largest share so far; 0 means that the analysis of convergence applies."""
        return max(self.shares, default=0.0)

    def remove(self) -> None:
        """Stop watching."""
        self._handle.remove()

    def _look(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        grew, count = 0, 0
        for group in optimizer.param_groups:
            for param in group["params"]:
                state = optimizer.state.get(param)
                if not state:
                    continue
                inverse = _inverse_step(group, state)
                last = self._last.get(param)
                self._last[param] = inverse
                if last is not None:
                    grew += int((inverse < last * (1.0 - self.tolerance)).sum())
                    count += inverse.numel()
        if count:
            self.shares.append(grew / count)


def _inverse_step(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """``sqrt(V_t) / alpha_t``."""
    name = next((name for name in _SECOND if name in state), None)
    if name is None:
        raise UnsupportedError(f"an optimizer with states {sorted(state)} has no second moment to watch")
    rate = float(group["lr"])
    if group.get("sqrt_decay"):
        rate *= float(state["step"]) ** -0.5
    root: Tensor = state[name].double().sqrt()
    return root / rate


def effective_step_monotone(optimizer: torch.optim.Optimizer, tolerance: float = 1e-6) -> StepGrowth:
    """Watch how many coordinates' effective steps ``alpha_t / sqrt(V_t)`` grow: the condition of Adam's analysis.

    Args:
        optimizer: Adam and its relatives, Adagrad, RMSprop; of this library or of torch.
        tolerance: growth up to this share counts as none.

    Returns:
        The watch; it looks after each ``step`` until ``remove()``.

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018, equation 2.

    >>> from covector.optim import Adagrad, Adam
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> for optimizer in (Adam([p], lr=0.1, betas=(0.9, 0.5)), Adagrad([p], lr=0.1)):
    ...     watch = effective_step_monotone(optimizer)
    ...     for slope in (3.0, 1.0, 1.0):
    ...         p.grad = torch.tensor([slope])
    ...         optimizer.step()
    ...     print(watch.worst)
    1.0
    0.0
    """
    return StepGrowth(optimizer, tolerance)
