"""Local SGD: workers step on their own and replace their parameters by everybody's mean once in a while."""

from __future__ import annotations

import torch

from covector import trees
from covector.distributed.schemes import Collective, MakeOptimizer, Scheme, Stepper, check_count
from covector.trees import Params

__all__ = ["LocalAveraging"]


class LocalAveraging(Scheme):
    """Every ``every`` steps each worker's parameters become the mean of all; what elastic averaging is compared with.

    Args:
        optimizer: makes a worker's local optimizer from its parameters.
        every: local steps from mean to mean; with 1 and plain SGD, the workers are one with a larger batch.

    Raises:
        ArgumentError: ``every`` below 1.

    Source: Stich, "Local SGD converges fast and communicates little", 2019, Algorithm 1.

    >>> scheme = LocalAveraging(lambda tensors: torch.optim.SGD(tensors, lr=0.1), every=8)
    >>> worker = scheme.replica({"x": torch.zeros(1)})
    >>> worker.absorb({"x": torch.tensor([6.0])}, workers=4); worker.params["x"].item()
    1.5
    """

    synchronous = True

    def __init__(self, optimizer: MakeOptimizer, every: int = 1) -> None:
        check_count("every", every)
        self.make, self.every = optimizer, every

    def replica(self, params: Params) -> Collective:
        """A worker's copy."""
        return _Averaged(params, self.make, self.every)


class _Averaged(Collective):
    def __init__(self, params: Params, make: MakeOptimizer, every: int) -> None:
        self.stepper = Stepper(params, make)
        self.params = self.stepper.params
        self.center = trees.clone(params)
        self.every = every

    def due(self) -> bool:
        return self.steps % self.every == 0

    def contribution(self) -> Params:
        return trees.clone(self.params)

    @torch.no_grad()
    def absorb(self, total: Params, workers: int) -> None:
        trees.copy_(self.center, total)
        for mean in self.center.values():
            mean.div_(workers)
        trees.copy_(self.params, self.center)

    def step(self, gradient: Params) -> None:
        self.steps += 1
        self.stepper.step(gradient)
