"""The noun hierarchy of WordNet as a directed graph: an edge goes from a synset to its hypernym."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from covector.data.splits import SPLITS, stratified
from covector.errors import ArgumentError

__all__ = ["Graph", "convert", "load"]

_HYPERNYM = frozenset({"@", "@i"})
_EDGES, _NODES = "edges.safetensors", "nodes.json"


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed graph with named nodes.

    Args:
        name: the catalog's name.
        nodes: names, all different: the first synset of a word has the plain word, later ones ``word#2``, ...
        edges: int64 ``[edges, 2]``, child and parent.
        splits: int64 indices into ``edges``, for link prediction; disjoint.

    >>> chain = Graph("chain", ("dog", "canine", "animal"), torch.tensor([[0, 1], [1, 2]]), {})
    >>> chain.closure().tolist()
    [[0, 1], [0, 2], [1, 2]]
    """

    name: str
    nodes: tuple[str, ...]
    edges: Tensor
    splits: dict[str, Tensor]

    def closure(self) -> Tensor:
        """All (descendant, ancestor) pairs, int64 ``[pairs, 2]``, in lexicographic order."""
        parents: dict[int, list[int]] = {}
        for child, parent in self.edges.tolist():
            parents.setdefault(child, []).append(parent)
        pairs = [(node, above) for node in range(len(self.nodes)) for above in sorted(_reach(node, parents))]
        return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)

    def below(self, root: str) -> Graph:
        """The subgraph of ``root`` and everything under it, with the edges between these nodes."""
        if root not in self.nodes:
            raise ArgumentError("root", root, "the name of a node")
        children: dict[int, list[int]] = {}
        for child, parent in self.edges.tolist():
            children.setdefault(parent, []).append(child)
        start = self.nodes.index(root)
        kept = sorted(_reach(start, children) | {start})
        number = torch.full((len(self.nodes),), -1, dtype=torch.int64)
        number[kept] = torch.arange(len(kept))
        inside = (number[self.edges] >= 0).all(dim=1)
        position = inside.cumsum(0) - 1
        splits = {split: position[chosen[inside[chosen]]] for split, chosen in self.splits.items()}
        return Graph(self.name, tuple(self.nodes[k] for k in kept), number[self.edges[inside]], splits)


def convert(raw: Path, out: Path, name: str) -> None:
    """Read the synsets and their hypernym pointers. Splits are 80/10/10 of the edges."""
    (path,) = raw.rglob("wordnet/data.noun")
    words: list[str] = []
    offsets: dict[str, int] = {}
    pointers: list[tuple[int, str]] = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the license stands in the first lines
            continue
        fields = line.split("|")[0].split()
        offsets[fields[0]] = len(words)
        pointers.extend((len(words), above) for above in _hypernyms(fields))
        words.append(fields[4])
    edges = torch.tensor([(child, offsets[above]) for child, above in pointers], dtype=torch.int64)
    splits = stratified([f"{child}/{above}" for child, above in pointers], [0] * len(pointers))
    number = torch.tensor([SPLITS.index(split) for split in splits], dtype=torch.uint8)
    save_file({"edges": edges, "split": number}, out / _EDGES)
    (out / _NODES).write_text(json.dumps(_distinct(words)), encoding="utf-8")


def load(folder: Path, name: str, root: str | None = None) -> Graph:
    """The hierarchy, or the part below ``root`` (``"mammal"`` gives the usual mammal subtree)."""
    tensors = load_file(folder / _EDGES)
    splits = {split: torch.nonzero(tensors["split"] == k).flatten() for k, split in enumerate(SPLITS)}
    nodes = tuple(json.loads((folder / _NODES).read_text(encoding="utf-8")))
    graph = Graph(name, nodes, tensors["edges"], splits)
    return graph if root is None else graph.below(root)


def _hypernyms(fields: list[str]) -> list[str]:
    """Offsets of the synset's hypernyms: after the words comes a count, then four fields a pointer."""
    start = 4 + 2 * int(fields[3], 16)
    count = int(fields[start])
    found = (fields[start + 1 + 4 * k : start + 5 + 4 * k] for k in range(count))
    return [offset for symbol, offset, part, _ in found if symbol in _HYPERNYM and part == "n"]


def _distinct(words: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for word in words:
        seen[word] += 1
        names.append(word if seen[word] == 1 else f"{word}#{seen[word]}")
    return names


def _reach(start: int, neighbors: dict[int, list[int]]) -> set[int]:
    """The nodes that can be reached from ``start`` by one or more steps."""
    found: set[int] = set()
    front = list(neighbors.get(start, ()))
    while front:
        node = front.pop()
        if node not in found:
            found.add(node)
            front.extend(neighbors.get(node, ()))
    return found
