"""A swarm of peers in one process, on a clock of its own: one joins, one is killed, and who has which bits when."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from covector import SeedPool, trees
from covector.evidence.experiments.digits import Digits, Pairs, classifier
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_membership import Timing
from covector.federated.swarm_worker import Worker
from covector.gradients import Seeded
from covector.objective import Objective
from covector.random import derive

__all__ = ["LR", "Story", "Swarm", "batch_of", "header_of", "mezo", "task"]

LR, BATCH = 0.05, 64
SIZE = 4096
TIMING = Timing(report=1.0, silence=5.0, start=5.0)


def task(seed: int) -> Objective:
    """The linear classifier that every peer starts from."""
    return classifier(seed, hidden=0)


def header_of(seed: int) -> SwarmHeader:
    """The run that every peer must hold identically."""
    return SwarmHeader.of(task(seed).params, SeedPool(key=1, size=SIZE), LR, key=seed)


def batch_of(digits: Digits, seed: int, iteration: int, sample: int) -> Pairs:
    """The batch of one scalar: a function of the run's seed, the iteration and the scalar's number."""
    return digits.batch(derive(seed, "batch", iteration, sample) & 0x7FFFFFFF, BATCH)


@dataclass
class Story:
    """What happens in a run.

    Args:
        founders: origin -> samples of the peers of iteration 0.
        iterations: length of the run.
        joins: iteration at which a newcomer of two samples knocks, or None.
        killed: iteration at which the second founder stops in the middle of the round, or None.
    """

    founders: dict[int, int]
    iterations: int
    joins: int | None = None
    killed: int | None = None

    newcomer = 900


@dataclass
class Swarm:
    """Drives the peers of a story; every message is delivered as bytes.

    ``digests[i]`` holds the SHA-256 of the parameters of each peer that closed iteration i.
    """

    digits: Digits
    story: Story
    seed: int
    workers: dict[int, Worker] = field(default_factory=dict)
    digests: dict[int, dict[int, str]] = field(default_factory=dict)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    samples: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        for origin, samples in self.story.founders.items():
            self._add(origin, samples, dict(self.story.founders))

    def _add(self, origin: int, samples: int, founders: dict[int, int] | None) -> None:
        peer = Peer(header_of(self.seed), origin, samples, founders, self.story.iterations, TIMING)
        worker = self.workers[origin] = Worker(peer, task(self.seed))
        peer.on_close.append(lambda: self._closed(worker))

    def _closed(self, worker: Worker) -> None:
        worker.refresh()
        closed = worker.peer.iteration - 1
        self.digests.setdefault(closed, {})[worker.peer.origin] = trees.digest(worker.objective.params)

    def run(self) -> None:
        """Let time pass until every peer that is alive has closed the last iteration."""
        while not all(worker.peer.ended for worker in self.workers.values()):
            self.now += 0.5
            reached = max(worker.peer.iteration for worker in self.workers.values())
            self._happen(reached)
            for worker in list(self.workers.values()):
                worker.peer.tick(self.now)
                if worker.peer.ready:
                    self._contribute(worker)
                self._deliver()

    def _happen(self, reached: int) -> None:
        story = self.story
        if story.joins is not None and reached >= story.joins and story.newcomer not in self.workers:
            self._add(story.newcomer, 2, None)
        if story.killed is not None and reached >= story.killed:
            self.workers.pop(list(story.founders)[1], None)

    def _contribute(self, worker: Worker) -> None:
        peer = worker.peer
        numbers = range(peer.origin, peer.origin + peer.samples)
        batches = [batch_of(self.digits, self.seed, peer.iteration, number) for number in numbers]
        self.samples += len(batches)
        worker.step(batches, self.now)

    def _deliver(self) -> None:
        letters = [(origin, letter) for origin, worker in self.workers.items() for letter in worker.peer.drain()]
        while letters:
            sender, letter = letters.pop(0)
            for origin, worker in self.workers.items():
                if origin != sender and letter.receiver in (None, origin):
                    self.sizes.setdefault(_kind(letter.data), []).append(len(letter.data))
                    worker.peer.receive(letter.data, self.now)
                    letters += [(origin, answer) for answer in worker.peer.drain()]


def _kind(data: bytes) -> str:
    return ("", "contribution", "report", "join", "sync", "refusal")[data[10]]


@torch.no_grad()
def mezo(digits: Digits, seed: int, samples: int, iterations: int, every: int = 0) -> tuple[Objective, list[float]]:
    """MeZO by one process as it is published: fp32 scalars, parameters moved in place, ``samples`` an iteration.

    Returns:
        The trained objective, and its held-out accuracy every so many iterations.
    """
    objective, eps, looks = task(seed), 2.0**-10, []
    for iteration in range(iterations):
        step = trees.zeros_like(objective.params)
        for number in range(samples):
            batch = batch_of(digits, seed, iteration, number)
            z = Seeded([derive(seed, "z", iteration, number)], [1.0])
            losses = []
            for scale in (eps, -2 * eps):
                z.add_to_(objective.params, scale)
                losses.append(float(objective(batch)))
            z.add_to_(objective.params, eps)
            z.add_to_(step, (losses[0] - losses[1]) / (2 * eps))
        trees.axpy_(objective.params, step, -LR / samples**0.5)
        if every and (iteration + 1) % every == 0:
            looks.append(digits.accuracy(objective))
    return objective, looks
