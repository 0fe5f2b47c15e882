"""A character language model that trains in seconds, on English text that comes with Python.

The text is the help of Python's own ``help("topics")`` (about 465,000 characters, 103 different ones; it differs
a little between versions of Python). The last tenth is held out. The model reads 16 characters through an
embedding and two hidden layers, and predicts the next one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from covector.compare.tasks.base import Task
from covector.objective import Objective

__all__ = ["BATCH", "CharLM", "Model", "charlm", "cross_entropy", "task", "train"]

Pairs = tuple[Tensor, Tensor]

BATCH = 256
CONTEXT = 16
HELD_OUT = 0.1
VALIDATION_WINDOWS = 8192


class Model(nn.Module):
    """Embedding of 16 characters, two hidden layers (GELU, the second one residual), softmax over the symbols.

    Args:
        symbols: size of the alphabet.
        width: of the hidden layers.
        embedding: numbers a character.
    """

    def __init__(self, symbols: int, width: int = 192, embedding: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.first = nn.Linear(CONTEXT * embedding, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[batch, symbols]`` of the character that follows ``inputs [batch, 16]``."""
        hidden = nn.functional.gelu(self.first(self.embedding(inputs).flatten(1)))
        hidden = hidden + nn.functional.gelu(self.second(hidden))
        scores: Tensor = self.head(hidden)
        return scores


class CharLM(NamedTuple):
    """A fresh model and what it is trained and judged on.

    Args:
        model: the model.
        train_batches: ``train_batches(steps)`` gives that many pairs of ``inputs [256, 16]`` and ``targets [256]``,
            always the same ones for one seed.
        validation_loss: cross-entropy of the model on held-out text, nats a character.
    """

    model: Model
    train_batches: Callable[[int], Iterator[Pairs]]
    validation_loss: Callable[[], float]


cross_entropy = nn.functional.cross_entropy


def charlm(seed: int = 0, width: int = 192) -> CharLM:
    """The task with a model and an order of batches that are functions of the seed.

    >>> model, train_batches, validation_loss = charlm(seed=0, width=8)
    >>> [tuple(t.shape) for t in next(train_batches(1))]
    [(256, 16), (256,)]
    """
    text, symbols = characters()
    cut = int(len(text) * (1 - HELD_OUT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(symbols, width)
    inputs, targets = _windows(text[cut:])
    every = max(1, len(targets) // VALIDATION_WINDOWS)
    inputs, targets = inputs[::every], targets[::every]

    @torch.no_grad()
    def validation_loss() -> float:
        return float(cross_entropy(model(inputs), targets))

    return CharLM(model, functools.partial(_batches, text[:cut], seed), validation_loss)


def train(
    task: CharLM,
    optimizer: torch.optim.Optimizer,
    steps: int = 300,
    warmup: int = 20,
    cosine: bool = True,
    after: Callable[[int, float], object] | None = None,
) -> float:
    """Train the task's model and return its validation loss.

    Args:
        task: from :func:`charlm`.
        optimizer: over ``task.model``; the learning rates of its groups are the peak of the schedule.
        steps: batches.
        warmup: steps over which the learning rate rises linearly; then it falls to zero along a cosine.
        cosine: keep the learning rate after the warm-up where false.
        after: called as ``after(step, loss)`` with gradients in place, after each step.

    >>> task = charlm(seed=0, width=8)
    >>> train(task, torch.optim.Adam(task.model.parameters(), lr=3e-3), steps=2) < 5
    True
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) if cosine else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step, (inputs, targets) in enumerate(task.train_batches(steps)):
        optimizer.zero_grad()
        loss = cross_entropy(task.model(inputs), targets)
        loss.backward()
        optimizer.step()
        schedule.step()
        if after is not None:
            after(step, float(loss.detach()))
    return task.validation_loss()


@functools.cache
def characters() -> tuple[Tensor, int]:
    """The text as numbers of symbols, and how many symbols there are."""
    import pydoc_data.topics

    topics: dict[str, str] = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics))
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet)


def _windows(text: Tensor) -> Pairs:
    """All runs of characters, as a view, and the character after each."""
    return text[:-1].unfold(0, CONTEXT, 1), text[CONTEXT:]


def _batches(text: Tensor, seed: int, steps: int) -> Iterator[Pairs]:
    inputs, targets = _windows(text)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(targets), (BATCH,), generator=generator)
        yield inputs[chosen], targets[chosen]


def task(seed: int = 0) -> Task:
    """The character language model as a task to compare optimizers on.

    >>> len(next(task(seed=0).batches(1)))
    2
    """
    model, train_batches, validation_loss = charlm(seed)
    return Task(model, Objective(model, cross_entropy), train_batches, validation_loss)
