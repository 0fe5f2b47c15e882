"""A text corpus: examples, their natural clients and their splits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covector.data.splits import SPLITS
from covector.errors import ArgumentError

__all__ = ["Corpus", "read_examples", "write_examples"]

_FILE = "examples.jsonl"


@dataclass(frozen=True)
class Corpus:
    """Text examples with splits and natural clients.

    Args:
        name: the catalog's name.
        examples: one dict an example, with ``text``, ``client`` and, for classification, ``label`` (int).
        splits: indices into ``examples`` for ``"train"``, ``"validation"`` and ``"test"``; disjoint.

    >>> corpus = Corpus("toy", [{"text": "hi", "client": "a"}, {"text": "ho", "client": "b"}],
    ...                 {"train": [0, 1], "validation": [], "test": []})
    >>> corpus.clients("train")["b"]
    [{'text': 'ho', 'client': 'b'}]
    """

    name: str
    examples: list[dict[str, Any]]
    splits: dict[str, list[int]]

    def split(self, name: str) -> list[dict[str, Any]]:
        """The examples of split ``name``, in the corpus's order."""
        if name not in self.splits:
            raise ArgumentError("name", name, f"one of {sorted(self.splits)}")
        return [self.examples[i] for i in self.splits[name]]

    def clients(self, split: str) -> dict[str, list[dict[str, Any]]]:
        """The examples of a split by natural client; clients in alphabetical order."""
        found: dict[str, list[dict[str, Any]]] = {}
        for example in self.split(split):
            found.setdefault(example["client"], []).append(example)
        return dict(sorted(found.items()))

    def balance(self, split: str) -> dict[str, dict[int, int]]:
        """How many examples of each label each client has in a split.

        >>> toy = [{"text": "hi", "label": 1, "client": "a"}, {"text": "ho", "label": 1, "client": "a"}]
        >>> Corpus("toy", toy, {"train": [0, 1]}).balance("train")
        {'a': {1: 2}}
        """
        counts: dict[str, dict[int, int]] = {}
        for client, examples in self.clients(split).items():
            labels = sorted(example["label"] for example in examples)
            counts[client] = {label: labels.count(label) for label in dict.fromkeys(labels)}
        return counts

    @classmethod
    def from_examples(cls, name: str, examples: Iterable[Mapping[str, Any]]) -> Corpus:
        """A corpus from examples that each carry their split under the key ``split``."""
        kept: list[dict[str, Any]] = []
        splits: dict[str, list[int]] = {split: [] for split in SPLITS}
        for example in examples:
            splits[example["split"]].append(len(kept))
            kept.append({key: value for key, value in example.items() if key != "split"})
        return cls(name, kept, splits)


def write_examples(folder: Path, examples: Iterable[Mapping[str, Any]]) -> None:
    """Write examples as JSON Lines, the form in which every text corpus lies in the cache."""
    with (folder / _FILE).open("w", encoding="utf-8", newline="\n") as sink:
        for example in examples:
            sink.write(json.dumps(example, ensure_ascii=False) + "\n")


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """The examples that :func:`write_examples` wrote."""
    with (folder / _FILE).open(encoding="utf-8") as source:
        return [json.loads(line) for line in source]
