"""What a scheme consists of: a worker's side, a shared side or a collective round, all without any transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["Collective", "MakeOptimizer", "Replica", "Scheme", "Server", "Stepper", "check_count", "gradient"]

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class Server(ABC):
    """The shared side: parameters that workers read, and messages that change them."""

    params: Params

    def read(self) -> Params:
        """A copy of what a worker gets that asks; the messages it sends have the same names and shapes."""
        return trees.clone(self.params)

    @abstractmethod
    def apply(self, message: Params) -> None:
        """Take in a worker's message."""


class Replica(ABC):
    """A worker's side: parameters of its own, at which it measures gradients."""

    params: Params
    steps: int = 0

    @abstractmethod
    def wants(self) -> bool:
        """Whether it asks for the shared parameters before its next gradient."""

    @abstractmethod
    def pull(self, shared: Params) -> None:
        """Take in what the server's ``read`` gave."""

    @abstractmethod
    def step(self, gradient: Params) -> Params | None:
        """Step with the gradient at ``params``; returns the message for the server, if any."""


class Collective(ABC):
    """A worker of a scheme without a server, in which all add up something once in a while."""

    params: Params
    center: Params
    steps: int = 0

    @abstractmethod
    def due(self) -> bool:
        """Whether a round comes before the next gradient."""

    @abstractmethod
    def contribution(self) -> Params:
        """What this worker adds."""

    @abstractmethod
    def absorb(self, total: Params, workers: int) -> None:
        """Take in the sum of all contributions."""

    @abstractmethod
    def step(self, gradient: Params) -> None:
        """Step with the gradient at ``params``."""


class Scheme(ABC):
    """A protocol: makes its two sides from the first parameters.

    Attributes:
        synchronous: whether workers are :class:`Collective` and wait for each other in rounds; there is no server then.
        separate: whether the tensors of a message travel, and arrive, one by one.
    """

    synchronous: bool = False
    separate: bool = False

    @abstractmethod
    def replica(self, params: Params) -> Any:
        """A worker that starts from a copy of ``params``."""

    def server(self, params: Params) -> Server:
        """The shared side, which starts from a copy of ``params``."""
        raise ArgumentError("scheme", type(self).__name__, "a scheme that has a server")


class Stepper:
    """Parameters and the optimizer that steps them.

    Args:
        params: stepped in place.
        make: ``make(tensors)`` gives the optimizer.

    >>> stepper = Stepper({"x": torch.ones(1)}, lambda tensors: torch.optim.SGD(tensors, lr=0.5))
    >>> stepper.step({"x": torch.ones(1)}); stepper.params["x"].item()
    0.5
    """

    def __init__(self, params: Params, make: MakeOptimizer) -> None:
        self.params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self.optimizer = make(list(self.params.values()))

    def step(self, gradient: Params) -> None:
        """One step; parameters that are not in ``gradient`` stay."""
        for name, g in gradient.items():
            self.params[name].grad = g
        self.optimizer.step()
        for name in gradient:
            self.params[name].grad = None


def gradient(objective: Objective, batch: Batch, params: Params) -> tuple[float, Params]:
    """Loss and gradient at ``params``, which require one.

    >>> objective = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(1)})
    >>> gradient(objective, None, {"x": torch.ones(1, requires_grad=True)})
    (1.0, {'x': tensor([2.])})
    """
    with torch.enable_grad():
        loss = objective(batch, params)
        tensors = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    found = {
        name: torch.zeros_like(p, requires_grad=False) if g is None else g
        for (name, p), g in zip(params.items(), tensors, strict=True)
    }
    return float(loss.detach()), found


def check_count(name: str, value: int) -> None:
    """Refuse what is not a whole number of at least 1.

    >>> check_count("every", 4)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(name, value, "a whole number of at least 1")
