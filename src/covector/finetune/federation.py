"""A corpus as a federation: clients with private data, one task, three splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from covector import data, language
from covector.errors import ArgumentError, DataError
from covector.finetune.settings import Settings
from covector.random import Stream, derive, uniform

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Federation", "gather", "task_from"]

Examples = dict[str, list[dict[str, Any]]]

_KEYS = {"text": ("text",), "prompt": ("prompt", "completion"), "label": ("text", "label")}


@dataclass(frozen=True)
class Federation:
    """Examples of each client, by split, and the task they are for.

    Args:
        task: how examples become batches and scores.
        train: by client; a client may have none.
        validation: by client; for choices during training.
        test: by client; looked at before and after, never in between.
        options: what :func:`task_from` makes the task of, JSON-ready; machines that see only their own data agree
            on the task by it.
    """

    task: language.TokenizedTask
    train: Examples
    validation: Examples
    test: Examples
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def clients(self) -> list[str]:
        """Names of the clients, in order."""
        return list(self.train)

    def batches(self, client: str, batch_size: int, seed: int) -> list[dict[str, torch.Tensor]]:
        """A client's training data as a list of batches; the last may be smaller.

        Texts are shuffled, and sorted by length only within windows of eight batches, so that batches hold
        little padding; in which order batches are used is up to the client.
        """
        examples = self.train[client]
        keys = uniform(derive(seed, "federation", client), len(examples), stream=Stream.BATCHES)
        order = torch.argsort(keys, stable=True).tolist()
        window = 8 * batch_size
        windows = [order[i : i + window] for i in range(0, len(order), window)]
        ordered = [i for part in windows for i in sorted(part, key=lambda i: _length(examples[i]))]
        parts = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
        return [self.task.collate([examples[i] for i in part]) for part in parts]


def _length(example: dict[str, Any]) -> int:
    return sum(len(value) for value in example.values() if isinstance(value, str))


def gather(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Federation:
    """The federation that the settings describe.

    Raises:
        ArgumentError: the data is neither in the catalog nor a file.
        DataError: the file cannot be read, or holds too few examples.
    """
    splits = _from_file(settings) if Path(settings.data).suffix else _from_catalog(settings)
    train, validation, test = (splits[name] for name in ("train", "validation", "test"))
    examples = [example for part in train.values() for example in part]
    if not examples or not any(test.values()):
        raise DataError(f"data={settings.data!r} leaves no examples to train on or to test with")
    options = {"shape": language.shape_of(examples), "max_length": settings.max_length, **_labels(examples)}
    limited = {name: part[: settings.examples] for name, part in train.items()}
    tested = {name: part[: settings.test_examples] for name, part in test.items()}
    checked = {name: part[: settings.check_examples] for name, part in validation.items()}
    return Federation(task_from(options, tokenizer), limited, checked, tested, options)


def task_from(options: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> language.TokenizedTask:
    """The task that ``options`` describe.

    Args:
        options: ``shape``, and the arguments of the shape's task.
        tokenizer: the model's tokenizer.
    """
    example = {key: "" for key in _KEYS[options["shape"]]}
    return language.task_for([example], tokenizer, **{key: options[key] for key in options if key != "shape"})


def _from_catalog(settings: Settings) -> dict[str, Examples]:
    names = [entry.name for entry in data.list() if entry.kind == "text"]
    if settings.data not in names:
        raise ArgumentError("data", settings.data, f"a JSONL file, or one of {names}")
    corpus = data.load(settings.data)
    return {split: _shuffled(corpus.clients(split), settings.seed, split) for split in ("train", "validation", "test")}


def _from_file(settings: Settings) -> dict[str, Examples]:
    examples = language.read_jsonl(settings.data)
    if all(settings.by in example for example in examples):
        by = language.by_field(examples, settings.by)
    else:
        by = {"client": examples}
    found: dict[str, Examples] = {"train": {}, "validation": {}, "test": {}}
    for client, own in by.items():
        parts = language.split(own, seed=settings.seed)
        found["train"][client], found["validation"][client], found["test"][client] = parts
    return found


def _shuffled(clients: Examples, seed: int, split: str) -> Examples:
    """A fixed shuffle, so that the first examples of a split are a fair sample of it."""
    result = {}
    for client, examples in clients.items():
        keys = uniform(derive(seed, split, client), len(examples), stream=Stream.BATCHES)
        result[client] = [examples[i] for i in torch.argsort(keys, stable=True).tolist()]
    return result


def _labels(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Verbalizers for classification: the defaults for 0 and 1, else the labels themselves."""
    labels = sorted({example["label"] for example in examples if "label" in example}, key=str)
    if not labels or set(labels) <= {0, 1}:
        return {}
    return {"labels": labels, "verbalizers": [f" {label}" for label in labels], "template": "{text} Label:"}
