"""Hierarchies to be embedded in hyperbolic space: a balanced tree, and WordNet's mammals.

The loss is Nickel and Kiela's (2017): for each pair of a node and one above it, the pair's distance against those
of ten nodes that are not above the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covector import data
from covector.optim import Optimizer
from covector.optim.manifolds import ManifoldParameter, PoincareBall

__all__ = ["Hierarchy", "Outcome", "balanced_tree", "embed", "mammals"]

BALL, DIMENSIONS, NEGATIVES = PoincareBall(), 5, 10
Make = Callable[[list[ManifoldParameter]], Optimizer]


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All pairs (node, node above it) ``[pairs, 2]`` of a hierarchy, and which nodes count as related."""

    name: str
    pairs: Tensor
    related: Tensor  # [nodes, nodes] of bool; a node is related to itself

    @classmethod
    def of(cls, name: str, nodes: int, pairs: Tensor) -> Hierarchy:
        related = torch.eye(nodes, dtype=torch.bool)
        related[pairs[:, 0], pairs[:, 1]] = True
        return cls(name, pairs, related)

    def loss(self, table: Tensor, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """Mean loss of pairs ``[batch, 2]``, with negatives drawn by a generator."""
        others = torch.randint(len(self.related), (len(pairs), NEGATIVES), generator=generator)
        first, rest = pairs[:, :1], torch.cat((pairs[:, 1:], others), 1)
        x, y = nn.functional.embedding(first, table), nn.functional.embedding(rest, table)
        closeness = -BALL.distance(x, y)
        hidden = self.related[first, rest]
        hidden[:, 0] = False
        return nn.functional.cross_entropy(
            closeness.masked_fill(hidden, float("-inf")), torch.zeros(len(pairs), dtype=torch.int64)
        )

    def reconstruction(self, table: Tensor) -> tuple[float, float]:
        """Mean rank of a related node among the unrelated ones by distance, and mean average precision."""
        nodes = len(self.related)
        ranks, precisions = [], []
        for node in torch.unique(self.pairs[:, 0]).tolist():
            distance = BALL.distance(table[node].expand(nodes, -1), table)
            above = self.related[node].clone()
            above[node] = False
            others = distance[~self.related[node]].sort().values
            near = distance[above].sort().values
            closer = torch.searchsorted(others, near)
            ranks.append(closer + 1.0)
            place = torch.arange(1, len(near) + 1)
            precisions.append((place / (closer + place)).mean())
        return float(torch.cat(ranks).mean()), float(torch.stack(precisions).mean())


@dataclass(frozen=True)
class Outcome:
    """Losses on all pairs along training, and the reconstruction at its end."""

    losses: list[float]
    rank: float
    precision: float


def balanced_tree(branching: int = 3, depth: int = 4) -> Hierarchy:
    """A tree in which each node but the leaves has as many children."""
    nodes = sum(branching**level for level in range(depth + 1))
    pairs = []
    for node in range(1, nodes):
        above = node
        while above:
            above = (above - 1) // branching
            pairs.append((node, above))
    return Hierarchy.of(f"balanced tree, {nodes} nodes, {len(pairs)} pairs", nodes, torch.tensor(pairs))


def mammals(root: str = "mammal") -> Hierarchy:
    """The nouns of WordNet under a root, with the transitive closure of their hypernyms."""
    graph = data.load("wordnet-nouns", root=root)
    pairs = graph.closure()
    return Hierarchy.of(
        f"WordNet under {root!r}, {len(graph.nodes)} nodes, {len(pairs)} pairs", len(graph.nodes), pairs
    )


def embed(hierarchy: Hierarchy, make: Make, steps: int, batch: int, seed: int, looks: int = 20) -> Outcome:
    """Train an embedding in the 5-dimensional ball, in double precision, from points near the origin.

    Args:
        hierarchy: what to embed.
        make: an optimizer over the table of points.
        steps: batches.
        batch: pairs a batch.
        seed: of the start, the batches and the negatives.
        looks: how often the loss on all pairs is taken, with the same negatives for all runs.
    """
    generator = torch.Generator().manual_seed(seed)
    start = (2 * torch.rand(len(hierarchy.related), DIMENSIONS, generator=generator, dtype=torch.float64) - 1) * 1e-3
    table = ManifoldParameter(start, BALL)
    optimizer = make([table])
    losses = []
    for step in range(1, steps + 1):
        chosen = torch.randint(len(hierarchy.pairs), (batch,), generator=generator)
        optimizer.zero_grad()
        hierarchy.loss(table, hierarchy.pairs[chosen], generator).backward()
        optimizer.step()
        if step % max(1, steps // looks) == 0:
            with torch.no_grad():
                losses.append(float(hierarchy.loss(table, hierarchy.pairs, torch.Generator().manual_seed(12345))))
    rank, precision = hierarchy.reconstruction(table.detach())
    return Outcome(losses, rank, precision)
