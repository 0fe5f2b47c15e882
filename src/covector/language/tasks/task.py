"""A task: how examples become batches, what loss a language model has on them, and how it is scored."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.language.batches import Batches
from covector.language.encoding import IGNORED, Batch, Encoded, Padding, pad_rows
from covector.language.examples import Example
from covector.language.heads import PREFIX
from covector.language.metrics import Metric, Scores
from covector.objective import Objective
from covector.training.modes import evaluating
from covector.trees import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Task", "TokenizedTask"]

Trainable = Iterable[str] | Callable[[str], bool] | None


@runtime_checkable
class Task(Protocol):
    """What training and evaluation need to know about a task; see :class:`TokenizedTask` for the meaning.

    >>> from covector.language import CausalTask, tiny_model
    >>> isinstance(CausalTask(tiny_model("one two")[1]), Task)
    True
    """

    metric: ClassVar[Metric]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The examples as one batch of tensors."""

    def batches(self, examples: Sequence[Example], batch_size: int, seed: int, bucket: int = 1) -> Batches:
        """Endless shuffled batches."""

    def objective(self, model: nn.Module, trainable: Trainable = None) -> Objective:
        """The loss as a function of the model's parameters and a batch."""

    def evaluate(
        self,
        model: nn.Module,
        examples: Sequence[Example],
        batch_size: int = 16,
        params: Params | None = None,
    ) -> Scores:
        """Loss and correctness, example by example."""

    def predictions(self, model: nn.Module, examples: Sequence[Example], batch_size: int = 16) -> list[dict[str, Any]]:
        """What the model says to each example, for reports."""


class TokenizedTask(abc.ABC):
    """The common part of the tasks on this floor; each adds an encoding, a head, a loss and a score.

    Args:
        tokenizer: the model's tokenizer, with a padding token.
        max_length: most tokens of an example.
        padding: side on which a batch is padded; the loss does not depend on it.

    >>> from covector.language import CausalTask, tiny_model
    >>> batch = CausalTask(tiny_model("a b c")[1], pack=False).collate([{"text": "a b c"}, {"text": "a b"}])
    >>> batch["attention_mask"].tolist()
    [[1, 1, 1], [1, 1, 0]]
    """

    metric: ClassVar[Metric]

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, padding: Padding = "right") -> None:
        if tokenizer.pad_token_id is None:
            raise ArgumentError("tokenizer", type(tokenizer).__name__, "one with a pad_token (load_model sets it)")
        if padding not in ("right", "left"):
            raise ArgumentError("padding", padding, "'right' or 'left'")
        if max_length < 2:
            raise ArgumentError("max_length", max_length, "a whole number of at least 2")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding: Padding = padding

    @abc.abstractmethod
    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """The examples as token ids and labels (packing may give more or fewer items than examples)."""

    @abc.abstractmethod
    def head(self, model: nn.Module) -> nn.Module:
        """The module that computes the logits the loss reads; it holds the model as ``head.model``."""

    @abc.abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar in float32."""

    @abc.abstractmethod
    def score(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, correctness in [0, 1] and number of predictions of each item: three times ``[B]``."""

    @abc.abstractmethod
    def predictions(self, model: nn.Module, examples: Sequence[Example], batch_size: int = 16) -> list[dict[str, Any]]:
        """What the model says to each example, one dict an example."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The examples as ``input_ids``, ``attention_mask`` (int64 ``[B, L]``) and ``labels``."""
        return self.pad(self.encode(examples))

    def pad(self, items: Sequence[Encoded]) -> Batch:
        """Encoded examples as a batch, padded to the longest; labels are ``[B]`` or ``[B, L]``."""
        rows = [item.ids for item in items]
        labels = [item.labels for item in items]
        tokens = [label for label in labels if isinstance(label, list)]
        return {
            "input_ids": pad_rows(rows, self.tokenizer.pad_token_id, self.padding),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0, self.padding),
            "labels": pad_rows(tokens, IGNORED, self.padding) if tokens else torch.tensor(labels),
        }

    def batches(self, examples: Sequence[Example], batch_size: int, seed: int, bucket: int = 1) -> Batches:
        """Endless, deterministic, resumable batches; see :class:`~covector.language.Batches`."""
        return Batches(self.encode(examples), self.pad, batch_size, seed, bucket)

    def objective(self, model: nn.Module, trainable: Trainable = None) -> Objective:
        """The loss as an Objective whose parameters have the names of ``model.named_parameters()``.

        Args:
            model: a Hugging Face causal language model, or a PEFT model around one.
            trainable: names of the parameters to train, or a predicate on names; ``None``: those with
                ``requires_grad``.
        """
        return Objective(self.head(model), self.loss, trainable=trainable, prefix=PREFIX)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        examples: Sequence[Example],
        batch_size: int = 16,
        params: Params | None = None,
    ) -> Scores:
        """Score every example, in evaluation mode, whatever the mode of the model; its mode is kept.

        Batches are made of items of similar length to spare padding; the result is in the order of
        ``examples``.

        Args:
            model: as for :meth:`objective`.
            examples: may be empty: then ``n`` is 0 and the means are NaN.
            batch_size: items a forward pass.
            params: parameters to score instead of the model's own, by their names there; the others stay.
        """
        items = self.encode(examples)
        columns = torch.zeros((3, len(items)), dtype=torch.float64)
        head = self.head(model)
        outputs = (
            partial(_outputs, head)
            if params is None
            else partial(Objective(head, self.loss, trainable=params, prefix=PREFIX).outputs, params=params)
        )
        with evaluating(head):
            for chosen in _by_length(items, batch_size):
                batch = self.pad([items[index] for index in chosen])
                scored = self.score(outputs(batch), batch)
                columns[:, chosen] = torch.stack([part.double().cpu() for part in scored])
        return Scores(columns[0], columns[1], columns[2], self.metric)


def _outputs(head: nn.Module, batch: Batch) -> Tensor:
    result: Tensor = head(**batch)
    return result


def _by_length(items: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    order = sorted(range(len(items)), key=lambda index: len(items[index].ids), reverse=True)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
