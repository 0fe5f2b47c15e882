"""AsyncSimulator: asynchronous training in one process, the same in each run, with the delays that are asked for."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from covector import trees
from covector.distributed.delays import Delay, Fixed
from covector.distributed.schemes import Collective, Replica, Scheme, check_count, gradient
from covector.errors import ArgumentError, CompositionError
from covector.objective import Batch, Objective
from covector.random import derive, integers, uniform
from covector.trees import Params

__all__ = ["AsyncSimulator"]

_BLOCK = 512


class AsyncSimulator:
    """Workers that take turns; time is counted in gradients.

    In each tick one worker reads the shared parameters if it wants to, measures a gradient and steps; its message
    arrives when ``delay`` further ticks are over (0: at once). All randomness is a function of ``seed``. A synchronous
    scheme has no messages: its workers meet for a round when it is due.

    Args:
        objective: what is minimized; its own parameters are the start and are not changed.
        workers: how many.
        scheme: what they do.
        delay: ticks a message is under way; a number, or a :class:`Delay` such as ``Poisson(4)``.
        seed: of the delays and of the turns.
        order: whose turn it is: ``"cyclic"``, or ``"random"``: workers of random speed.

    Attributes:
        replicas: the workers.
        staleness: for each applied message, how many others were applied since its worker read.

    Raises:
        ArgumentError: a value out of range.
        CompositionError: a delay with a synchronous scheme.

    >>> import torch
    >>> objective = Objective.from_function(lambda p, batch: (p["x"] - batch).square().sum(), {"x": torch.zeros(1)})
    >>> from covector.distributed import Downpour, Poisson
    >>> scheme = Downpour(lambda tensors: torch.optim.SGD(tensors, lr=0.05))
    >>> simulator = AsyncSimulator(objective, workers=4, scheme=scheme, delay=Poisson(4))
    >>> losses = simulator.run(lambda worker, step: torch.ones(1), steps=200)
    >>> losses[0], round(simulator.params["x"].item(), 4)
    (1.0, 1.0)
    """

    def __init__(
        self,
        objective: Objective,
        workers: int,
        scheme: Scheme,
        delay: int | Delay = 0,
        seed: int = 0,
        order: Literal["cyclic", "random"] = "cyclic",
    ) -> None:
        check_count("workers", workers)
        if order not in ("cyclic", "random"):
            raise ArgumentError("order", order, "'cyclic' or 'random'")
        self.delay: Delay = Fixed(delay) if isinstance(delay, int) else delay
        if scheme.synchronous and (self.delay != Fixed(0) or order != "cyclic"):
            name = type(scheme).__name__
            raise CompositionError(f"{name} is synchronous: its workers wait for each other; delay=0, order='cyclic'")
        self.objective, self.scheme, self.seed, self.order = objective, scheme, seed, order
        start = {name: p.detach() for name, p in objective.params.items()}
        self.replicas: list[Replica | Collective] = [scheme.replica(start) for _ in range(workers)]
        self.server = None if scheme.synchronous else scheme.server(start)
        self.staleness: list[int] = []
        self.ticks = 0
        self._applied = 0
        self._read = [0] * workers
        self._sent = 0
        self._flying: list[tuple[int, int, int, Params]] = []

    @property
    def params(self) -> Params:
        """The shared parameters: the server's, the center, or the last mean."""
        first = self.replicas[0]
        if self.server is not None:
            return self.server.params
        assert isinstance(first, Collective)
        return first.center

    @property
    def mean_staleness(self) -> float:
        """Mean of ``staleness``."""
        return statistics.fmean(self.staleness) if self.staleness else 0.0

    def run(self, batches: Callable[[int, int], Batch], steps: int) -> list[float]:
        """Let the workers take ``steps`` gradients in all.

        Args:
            batches: ``batches(worker, step)`` gives a worker's batch for its own step number, from 0.
            steps: gradients; messages that are under way at the end stay so, see :meth:`deliver`.

        Returns:
            The loss of each, at the worker's own parameters.
        """
        losses = []
        for _ in range(steps):
            worker = self._turn()
            losses.append(self._collective(worker, batches) if self.server is None else self._single(worker, batches))
            self.ticks += 1
        return losses

    def deliver(self, until: int | None = None) -> None:
        """Apply the messages that have arrived by a tick; None: all."""
        assert self.server is not None
        while self._flying and (until is None or self._flying[0][0] <= until):
            _, _, read, message = heapq.heappop(self._flying)
            self.staleness.append(self._applied - read)
            self.server.apply(message)
            self._applied += 1

    def _single(self, worker: int, batches: Callable[[int, int], Batch]) -> float:
        replica = self.replicas[worker]
        assert self.server is not None
        assert isinstance(replica, Replica)
        if replica.wants():
            replica.pull(self.server.read())
            self._read[worker] = self._applied
        loss, found = gradient(self.objective, batches(worker, replica.steps), replica.params)
        message = replica.step(found)
        if message is not None:
            parts = [{name: tensor} for name, tensor in message.items()] if self.scheme.separate else [message]
            for part in parts:
                arrival = self.ticks + self.delay(self._uniform("delay", self._sent))
                heapq.heappush(self._flying, (arrival, self._sent, self._read[worker], part))
                self._sent += 1
        self.deliver(self.ticks)
        return loss

    def _collective(self, worker: int, batches: Callable[[int, int], Batch]) -> float:
        together = [replica for replica in self.replicas if isinstance(replica, Collective)]
        if worker == 0 and together[0].due():
            total = together[0].contribution()
            for other in together[1:]:
                trees.axpy_(total, other.contribution())
            for one in together:
                one.absorb(total, len(together))
        own = together[worker]
        loss, found = gradient(self.objective, batches(worker, own.steps), own.params)
        own.step(found)
        return loss

    def _turn(self) -> int:
        count = len(self.replicas)
        if self.order == "cyclic":
            return self.ticks % count
        block, place = divmod(self.ticks, _BLOCK)
        if place == 0:
            self._turns: Tensor = integers(derive(self.seed, "turns", block), count, _BLOCK)
        return int(self._turns[place])

    def _uniform(self, label: str, index: int) -> float:
        block, place = divmod(index, _BLOCK)
        if place == 0:
            self._numbers: list[float] = uniform(derive(self.seed, label, block), _BLOCK).tolist()
        return self._numbers[place]
