"""Downpour SGD and Hogwild: workers send gradients to an optimizer that all share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from covector import trees
from covector.distributed.schemes import MakeOptimizer, Replica, Scheme, Server, Stepper, check_count
from covector.trees import Params

__all__ = ["Downpour", "Hogwild"]


class Downpour(Scheme):
    """Each worker fetches the parameters every ``fetch`` steps and pushes its summed gradients every ``push`` steps.

    Args:
        server: makes the server's optimizer from its parameters; published with Adagrad.
        local: makes the optimizer a worker steps its own copy with between two fetches; None: it waits with what it
            fetched.
        fetch: steps from fetch to fetch.
        push: steps from push to push.

    Raises:
        ArgumentError: ``fetch`` or ``push`` below 1.

    Source: Dean et al., "Large scale distributed deep networks", 2012, Algorithm 7.1.

    >>> import torch
    >>> scheme = Downpour(lambda tensors: torch.optim.SGD(tensors, lr=0.5), push=2)
    >>> worker = scheme.replica({"x": torch.zeros(1)})
    >>> [worker.step({"x": torch.ones(1)}) for _ in range(2)]
    [None, {'x': tensor([2.])}]
    """

    def __init__(
        self, server: MakeOptimizer, local: MakeOptimizer | None = None, fetch: int = 1, push: int = 1
    ) -> None:
        check_count("fetch", fetch)
        check_count("push", push)
        self.make, self.local, self.fetch, self.push = server, local, fetch, push

    def server(self, params: Params) -> Server:
        """An optimizer over a copy of ``params``."""
        return _OptimizerServer(params, self.make)

    def replica(self, params: Params) -> Replica:
        """A worker's copy and the sum of its gradients."""
        return _Pushing(params, self.local or _stay, self.fetch, self.push)


class Hogwild(Scheme):
    """Workers update shared parameters without locks: a reader may see some tensors before and some after an update.

    In :class:`AsyncSimulator`, each tensor's part of an update has a delay of its own. With processes:
    :func:`~covector.distributed.hogwild`.

    Args:
        optimizer: makes the optimizer from the shared parameters; published with plain SGD.

    Source: Niu, Recht, Re and Wright, "Hogwild: a lock-free approach to parallelizing SGD", 2011, Algorithm 1.

    >>> import torch
    >>> Hogwild(lambda tensors: torch.optim.SGD(tensors, lr=0.5)).separate
    True
    """

    separate = True

    def __init__(self, optimizer: MakeOptimizer) -> None:
        self.make = optimizer

    def server(self, params: Params) -> Server:
        """The shared parameters."""
        return _OptimizerServer(params, self.make)

    def replica(self, params: Params) -> Replica:
        """A worker that reads before each gradient."""
        return _Pushing(params, _stay, 1, 1)


class _OptimizerServer(Server):
    def __init__(self, params: Params, make: MakeOptimizer) -> None:
        self.stepper = Stepper(params, make)
        self.params = self.stepper.params

    def apply(self, message: Params) -> None:
        self.stepper.step(message)


class _Pushing(Replica):
    def __init__(self, params: Params, make: MakeOptimizer, fetch: int, push: int) -> None:
        self.stepper = Stepper(params, make)
        self.params = self.stepper.params
        self.fetch, self.push = fetch, push
        self.sum: Params | None = None

    def wants(self) -> bool:
        return self.steps % self.fetch == 0

    def pull(self, shared: Params) -> None:
        trees.copy_(self.params, shared)

    def step(self, gradient: Params) -> Params | None:
        self.steps += 1
        if self.sum is None:
            self.sum = trees.clone(gradient)
        else:
            trees.axpy_(self.sum, gradient)
        self.stepper.step(gradient)
        if self.steps % self.push:
            return None
        message, self.sum = self.sum, None
        return message


def _stay(tensors: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(tensors, lr=0.0)
