"""Which learning rate to try next. A tuner is asked for some, told what came of them, and asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from covector.errors import ArgumentError, require_extra

__all__ = ["Grid", "Listed", "Optuna", "Tuner", "make_tuner", "search"]

T = TypeVar("T")


_LONGEST = 2.0  # a factor of 4


class Tuner(Protocol):
    """Proposes learning rates until its budget is spent."""

    @property
    def at_edge(self) -> bool:
        """Whether the best is the smallest or largest that was tried, so that a better one may lie beyond."""

    def ask(self) -> list[float]:
        """The learning rates to try now; none when the budget is spent."""

    def tell(self, lr: float, value: float) -> None:
        """The validation loss at a learning rate; infinite where it diverged."""


class Grid:
    """Powers of two around a start; goes on at the edge in strides of four while the best is there, then looks between.

    Args:
        start: the first learning rate.
        budget: learning rates in all.

    >>> grid = Grid(1.0, budget=8)
    >>> while rates := grid.ask():
    ...     for lr in rates:
    ...         grid.tell(lr, (math.log2(lr) - 5.2) ** 2)
    >>> list(grid.tried), min(grid.tried, key=grid.tried.get)
    ([1.0, 0.5, 2.0, 8.0, 32.0, 128.0, 16.0, 64.0], 32.0)
    """

    def __init__(self, start: float, budget: int) -> None:
        self.start = start
        self.budget = budget
        self.values: dict[float, float] = {}  # by exponent of two
        self._asked: dict[float, float] = {}

    @property
    def tried(self) -> dict[float, float]:
        """Validation loss by learning rate."""
        return {self.start * 2.0**exponent: value for exponent, value in self.values.items()}

    @property
    def at_edge(self) -> bool:
        """Whether the best is the smallest or largest that was tried."""
        return not self.values or self._best() in (min(self.values), max(self.values))

    def ask(self) -> list[float]:
        """The learning rates to try now; none when the budget is spent."""
        exponents = self._next()[: self.budget - len(self.values)]
        self._asked = {self.start * 2.0**exponent: exponent for exponent in exponents}
        return list(self._asked)

    def tell(self, lr: float, value: float) -> None:
        """The validation loss at a learning rate; infinite where it diverged."""
        if lr not in self._asked:
            raise ArgumentError("lr", lr, "one that was asked for")
        self.values[self._asked[lr]] = value

    def _best(self) -> float:
        # where nothing is finite the smallest learning rate leads
        return min(self.values, key=lambda exponent: (self.values[exponent], exponent))

    def _next(self) -> list[float]:
        if not self.values:
            return [0.0, -1.0, 1.0]
        best, tried = self._best(), sorted(self.values)
        place = tried.index(best)
        if best == tried[0]:
            return [best - self._stride(tried[:2])]
        if best == tried[-1]:
            return [best + self._stride(tried[-2:])]
        below, above = tried[place - 1], tried[place + 1]
        middles = [(below + best) / 2, (best + above) / 2]
        return middles if best - below >= above - best else middles[::-1]

    def _stride(self, last: list[float]) -> float:
        """Twice the last gap: a default may be hundreds of times off."""
        return min(2 * (last[-1] - last[0]), _LONGEST) if len(last) > 1 else 1.0


class Optuna:
    """Optuna's tree of Parzen estimators, on a logarithmic scale from a sixty-fourth to 64 times a start.

    Args:
        start: the first learning rate.
        budget: learning rates in all.
        seed: of the sampler.

    Raises:
        MissingExtraError: optuna is not installed.
    """

    def __init__(self, start: float, budget: int, seed: int = 0) -> None:
        require_extra("optuna", "compare")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, budget // 3))
        self.study: Any = optuna.create_study(sampler=sampler)
        self.study.enqueue_trial({"lr": start})
        self.low, self.high, self.budget = start / 64, start * 64, budget
        self.tried: dict[float, float] = {}
        self._open: dict[float, Any] = {}

    @property
    def at_edge(self) -> bool:
        """Whether the best is the smallest or largest that was tried."""
        return not self.tried or min(self.tried, key=self.tried.__getitem__) in (min(self.tried), max(self.tried))

    def ask(self) -> list[float]:
        """The next learning rate; none when the budget is spent."""
        if len(self.tried) + len(self._open) >= self.budget:
            return []
        trial = self.study.ask()
        lr = float(trial.suggest_float("lr", self.low, self.high, log=True))
        self._open[lr] = trial
        return [lr]

    def tell(self, lr: float, value: float) -> None:
        """The validation loss at a learning rate; infinite where it diverged."""
        import optuna

        state = None if math.isfinite(value) else optuna.trial.TrialState.FAIL
        self.study.tell(self._open.pop(lr), None if state else value, state=state)
        self.tried[lr] = value


class Listed:
    """The learning rates of a list, in its order; then, while the best is at an edge, the next power of two beyond.

    Args:
        rates: the list.
        budget: learning rates in all, default those of the list.

    >>> tuner = Listed([1.0, 2.0], budget=4)
    >>> _, found = search(tuner, lambda lr: (lr - 7.0) ** 2)
    >>> list(found), tuner.at_edge
    ([1.0, 2.0, 4.0, 8.0], True)
    """

    def __init__(self, rates: Sequence[float], budget: int | None = None) -> None:
        self.rates = list(rates)
        self.budget = len(self.rates) if budget is None else budget
        self.tried: dict[float, float] = {}

    @property
    def at_edge(self) -> bool:
        """Whether the best is the smallest or largest that was tried."""
        return not self.tried or self._best() in (min(self.tried), max(self.tried))

    def ask(self) -> list[float]:
        """The learning rates to try now; none when the budget is spent."""
        if not self.tried:
            return self.rates
        if len(self.tried) >= self.budget or not self.at_edge:
            return []
        return [self._best() / 2 if self._best() == min(self.tried) else self._best() * 2]

    def tell(self, lr: float, value: float) -> None:
        """The loss at a learning rate; infinite where it diverged."""
        self.tried[lr] = value

    def _best(self) -> float:
        return min(self.tried, key=self.tried.__getitem__)


def search(
    tuner: Tuner, trial: Callable[[float], T], loss: Callable[[T], float] | None = None
) -> tuple[float, dict[float, T]]:
    """Try what a tuner asks for, one after another in this process.

    Args:
        tuner: proposes learning rates.
        trial: what comes of one.
        loss: what to make small in it; default the number itself.

    Returns:
        The best learning rate, the first of equals, and what came of each.

    >>> search(Listed([0.1, 0.3, 1.0]), lambda lr: abs(lr - 0.4))[0]
    0.3
    """
    found: dict[float, T] = {}
    losses: dict[float, float] = {}
    while rates := tuner.ask():
        for lr in rates:
            found[lr] = trial(lr)
            losses[lr] = loss(found[lr]) if loss else float(found[lr])  # type: ignore[arg-type]
            tuner.tell(lr, losses[lr])
    return min(losses, key=losses.__getitem__), found


def make_tuner(name: str, start: float, budget: int) -> Tuner:
    """A tuner by name: ``"grid"`` or ``"optuna"``.

    >>> make_tuner("grid", 0.5, 2).ask()
    [0.5, 0.25]
    """
    return Optuna(start, budget) if name == "optuna" else Grid(start, budget)
