"""A task that trains in seconds, for experiments: scikit-learn's 8 x 8 digits, alone or dealt to unequal clients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from covector import data
from covector.objective import Objective
from covector.trees import Params

__all__ = ["Digits", "classifier"]

Pairs = tuple[Tensor, Tensor]


def classifier(seed: int, hidden: int = 64, dtype: torch.dtype = torch.float32) -> Objective:
    """The cross-entropy of a fresh network 64 - hidden - 10 with tanh; ``hidden=0`` is a linear classifier."""
    torch.manual_seed(seed)
    layers = [nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10)] if hidden else [nn.Linear(64, 10)]
    return Objective(nn.Sequential(*layers).to(dtype), nn.functional.cross_entropy)


@dataclass(frozen=True)
class Digits:
    """Training images ``[1437, 64]``, and the 360 held-out ones that no experiment tunes anything on."""

    train: Pairs
    held_out: Pairs

    @classmethod
    def load(cls) -> Digits:
        """Read the data set, fetching it once; its validation and test splits together are held out."""
        found = data.load("digits")
        splits = [found.dataset(name).tensors for name in ("train", "validation", "test")]
        train, *rest = [(x.flatten(1), y) for x, y in splits]
        return cls(train, (torch.cat([x for x, _ in rest]), torch.cat([y for _, y in rest])))

    def accuracy(self, objective: Objective, params: Params | None = None) -> float:
        """Share of the held-out images that are classified right."""
        inputs, targets = self.held_out
        with torch.no_grad():
            outputs = objective.outputs((inputs, targets), params)
        return float((outputs.argmax(1) == targets).double().mean())

    def clients(self, seed: int, count: int = 20, alpha: float = 0.5, batch_size: int = 32) -> dict[str, list[Pairs]]:
        """Deal the training images to clients, each class in proportions drawn from a Dirichlet distribution.

        Args:
            seed: of the proportions and of the dealing.
            count: clients; one may end up with little or no data.
            alpha: concentration of the distribution; the smaller, the more the clients differ.
            batch_size: images a batch; a client's last batch may be smaller.

        Returns:
            The batches of each client.
        """
        inputs, targets = self.train
        draw = numpy.random.default_rng(seed)
        owner = numpy.empty(len(targets), dtype=numpy.int64)
        for label in range(10):
            owner[(targets == label).numpy()] = draw.choice(
                count, int((targets == label).sum()), p=draw.dirichlet([alpha] * count)
            )
        dealt = [torch.from_numpy(draw.permutation(numpy.flatnonzero(owner == client))) for client in range(count)]
        return {
            f"client-{client:02d}": [(inputs[part], targets[part]) for part in own.split(batch_size) if len(part)]
            for client, own in enumerate(dealt)
        }

    def batch(self, seed: int, size: int) -> Pairs:
        """A batch of training images drawn with replacement: a function of ``seed``."""
        inputs, targets = self.train
        chosen = torch.randint(len(targets), (size,), generator=torch.Generator().manual_seed(seed))
        return inputs[chosen], targets[chosen]
