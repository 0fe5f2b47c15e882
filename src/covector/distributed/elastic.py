"""Elastic averaging SGD: workers explore on their own, tied by a spring to a center that follows them."""

from __future__ import annotations

from typing import Any

import torch

from covector import trees
from covector.distributed.schemes import Collective, MakeOptimizer, Replica, Scheme, Server, Stepper, check_count
from covector.errors import ArgumentError
from covector.trees import Params

__all__ = ["EASGD"]


class EASGD(Scheme):
    """Every ``every`` steps, worker and center move towards each other by ``alpha`` of what is between them.

    With x the worker, c the center, and the gradient measured before the exchange::

        x <- x - alpha (x - c) - step(g(x)),    c <- c + alpha (x - c)

    In the synchronous form all workers exchange at once and ``c <- c + alpha sum_i (x_i - c)``. A local optimizer with
    Nesterov's momentum makes it EAMSGD. ``alpha = 0`` is workers on their own.

    Args:
        optimizer: makes a worker's local optimizer from its parameters.
        alpha: moving rate, the paper's ``lr * rho``; its default is 0.9 / workers.
        every: local steps from exchange to exchange.
        synchronous: whether the workers exchange at once. Then no server is needed, and processes give the same bits in
            each run.

    Raises:
        ArgumentError: ``alpha`` outside [0, 1], ``every`` below 1.

    Source: Zhang, Choromanska and LeCun, "Deep learning with elastic averaging SGD", 2015, equations 5 and 6,
    Algorithm 1.

    >>> scheme = EASGD(lambda tensors: torch.optim.SGD(tensors, lr=0.1), alpha=0.25)
    >>> worker = scheme.replica({"x": torch.ones(1)})
    >>> worker.pull({"x": torch.zeros(1)})
    >>> worker.step({"x": torch.zeros(1)}), worker.params["x"].item()
    ({'x': tensor([0.2500])}, 0.75)
    """

    def __init__(self, optimizer: MakeOptimizer, alpha: float, every: int = 1, synchronous: bool = False) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ArgumentError("alpha", alpha, "a number from 0 to 1")
        check_count("every", every)
        self.make, self.alpha, self.every = optimizer, alpha, every
        self.synchronous = synchronous

    def server(self, params: Params) -> Server:
        """The center."""
        return _Center(params)

    def replica(self, params: Params) -> Any:
        """A worker; with a copy of the center where the scheme is synchronous."""
        made = _Together if self.synchronous else _Elastic
        return made(params, self.make, self.alpha, self.every)


class _Center(Server):
    def __init__(self, params: Params) -> None:
        self.params = trees.clone(params)

    def apply(self, message: Params) -> None:
        trees.axpy_(self.params, message)


class _Spring:
    """A worker, its optimizer, and the pull that its next step adds."""

    def __init__(self, params: Params, make: MakeOptimizer, alpha: float, every: int) -> None:
        self.stepper = Stepper(params, make)
        self.params = self.stepper.params
        self.alpha, self.every = alpha, every
        self.steps = 0
        self.pulled: Params | None = None

    def stretch(self, center: Params) -> Params:
        with torch.no_grad():
            return {name: p - center[name] for name, p in self.params.items()}

    def move(self, gradient: Params) -> None:
        self.steps += 1
        self.stepper.step(gradient)
        if self.pulled is not None:
            trees.axpy_(self.params, self.pulled, -1.0)


class _Elastic(_Spring, Replica):
    def wants(self) -> bool:
        return self.steps % self.every == 0

    def pull(self, shared: Params) -> None:
        self.pulled = self.stretch(shared)
        trees.scale_(self.pulled, self.alpha)

    def step(self, gradient: Params) -> Params | None:
        self.move(gradient)
        message, self.pulled = self.pulled, None
        return message


class _Together(_Spring, Collective):
    def __init__(self, params: Params, make: MakeOptimizer, alpha: float, every: int) -> None:
        super().__init__(params, make, alpha, every)
        self.center = trees.clone(params)

    def due(self) -> bool:
        return self.steps % self.every == 0

    def contribution(self) -> Params:
        return self.stretch(self.center)

    def absorb(self, total: Params, workers: int) -> None:
        self.pulled = self.stretch(self.center)
        trees.scale_(self.pulled, self.alpha)
        trees.axpy_(self.center, total, self.alpha)

    def step(self, gradient: Params) -> None:
        self.move(gradient)
        self.pulled = None
