"""Worker: a peer with a model. It measures slopes where the ledger stands and keeps the weights at the ledger."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from covector import trees
from covector.errors import ArgumentError
from covector.estimators import slope_central
from covector.federated.swarm import Peer
from covector.gradients import Gradient
from covector.objective import Batch, Objective

__all__ = ["Worker", "exchange"]


class Worker:
    """Binds a :class:`~covector.federated.swarm.Peer` to an objective.

    Args:
        peer: the state machine.
        objective: its live parameters must be the run's ``theta_0``; they are overwritten as the swarm moves on.
        adaptive: let the scale of the one-byte code follow the median slope of this worker (each contribution
            says its scale), instead of the header's.

    Raises:
        MismatchError: the parameters are not the run's ``theta_0``.

    >>> import torch
    >>> from covector import Objective, SketchPool
    >>> from covector.federated.swarm_header import SwarmHeader
    >>> f = Objective.from_function(lambda p, b: (p["x"] ** 2).sum(), {"x": torch.ones(4)})
    >>> header = SwarmHeader.of(f.params, SketchPool(key=1, size=4), lr=0.05)
    >>> worker = Worker(Peer(header, origin=1, samples=1, founders={1: 1}), f)
    >>> before = f(None).item()
    >>> for step in range(20): _ = worker.step([None], now=step)
    >>> f(None).item() < before
    True
    """

    def __init__(self, peer: Peer, objective: Objective, adaptive: bool = False) -> None:
        self.peer = peer
        self.objective = objective
        self.theta0 = trees.clone(objective.params)
        peer.header.check_base(self.theta0)
        self.adaptive = adaptive
        self._median = 0.0
        self._shown = ""

    def refresh(self) -> bool:
        """Write ``theta_0`` plus the ledger into the live parameters, if the ledger has changed.

        Returns:
            Whether it had.
        """
        digest = self.peer.replica.ledger.digest()
        if digest == self._shown:
            return False
        self.peer.replica.ledger.materialize(self.theta0, out=self.objective.params)
        self._shown = digest
        return True

    def measure(self, batches: Sequence[Batch], directions: Sequence[Gradient] = ()) -> tuple[float, list[float]]:
        """Mean loss and the slopes, one batch for each of the peer's samples; the parameters are only read.

        Args:
            batches: one a sample.
            directions: those of the peer by default; given where the peer may move on meanwhile in another thread.

        Raises:
            ArgumentError: not one batch a sample.
        """
        if len(batches) != self.peer.samples:
            raise ArgumentError("batches", f"{len(batches)} of them", f"{self.peer.samples}, one a sample")
        directions = directions or self.peer.directions()
        eps = self.peer.header.eps
        pairs = [slope_central(self.objective, batch, z, eps) for batch, z in zip(batches, directions, strict=True)]
        return statistics.fmean(loss for loss, _ in pairs), [slope for _, slope in pairs]

    def contribute(self, slopes: Sequence[float], now: float, leave: bool = False) -> None:
        """Hand the slopes of :meth:`measure` to the peer; follows their size if ``adaptive``."""
        if self.adaptive:
            self._follow(slopes)
        self.peer.contribute(slopes, now, leave)

    def step(self, batches: Sequence[Batch], now: float, leave: bool = False) -> float:
        """:meth:`refresh`, :meth:`measure` and :meth:`contribute` in one; returns the loss."""
        self.refresh()
        loss, slopes = self.measure(batches)
        self.contribute(slopes, now, leave)
        self.refresh()
        return loss

    def _follow(self, slopes: Sequence[float]) -> None:
        sizes = [abs(slope) for slope in slopes if math.isfinite(slope) and slope != 0.0]
        if not sizes:
            return
        median = statistics.median(sizes)
        self._median = median if self._median == 0.0 else 0.9 * self._median + 0.1 * median
        center = self.peer.header.scale_exponent
        self.peer.set_scale(min(max(round(math.log2(self._median)), center - 8), center + 8))


def exchange(peers: Sequence[Peer], now: float = 0.0) -> int:
    """Deliver the letters of peers in one process until nobody has more to say; returns the bytes delivered.

    >>> exchange([])
    0
    """
    delivered = 0
    letters = [(peer.origin, letter) for peer in peers for letter in peer.drain()]
    while letters:
        sender, letter = letters.pop(0)
        for peer in peers:
            if peer.origin != sender and letter.receiver in (None, peer.origin):
                peer.receive(letter.data, now)
                delivered += len(letter.data)
                letters += [(peer.origin, answer) for answer in peer.drain()]
    return delivered
