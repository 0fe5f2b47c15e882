"""Classification through the language model's own head: which of a few words comes next?

"A film of great charm. It was" is followed by " great" or by " terrible"; the logits of the two tokens are
the logits of the two classes. No new parameters, and a pretrained model is better than chance at once.
Source: Schick and Schuetze, "Exploiting cloze questions for few-shot text classification", EACL 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.language.encoding import Batch, Encoded, Encoder, Padding, plain_ids
from covector.language.examples import Example
from covector.language.heads import VerbalizerHead
from covector.language.metrics import Metric
from covector.language.tasks.task import TokenizedTask
from covector.training.modes import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["VerbalizerTask"]


class VerbalizerTask(TokenizedTask):
    """Classify ``{"text", "label"}`` examples by the logits of one token a class.

    Args:
        tokenizer: the model's tokenizer.
        verbalizers: one string a class, each a single token after the template; mind the leading space.
        template: what the model reads; has ``{text}`` once and ends where the verbalizer follows.
        max_length: most tokens of a text in its template. The text is cut, never the template.
        labels: the values of ``label`` in the order of ``verbalizers``; ``None``: 0, 1, 2, ...
        padding: side on which a batch is padded.

    Raises:
        ArgumentError: fewer than two verbalizers, two that share a token, or one that is not a single token
            (the message names its tokens).

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("a dull film It was great terrible")
    >>> task = VerbalizerTask(tokenizer)
    >>> objective = task.objective(model)
    >>> objective.outputs(task.collate([{"text": "a dull film", "label": 0}])).shape
    torch.Size([1, 2])
    """

    metric: ClassVar[Metric] = "accuracy"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        verbalizers: Sequence[str] = (" terrible", " great"),
        template: str = "{text} It was",
        max_length: int = 64,
        labels: Sequence[str | int] | None = None,
        padding: Padding = "right",
    ) -> None:
        super().__init__(tokenizer, max_length, padding)
        self.verbalizers = tuple(verbalizers)
        self.encoder = Encoder(tokenizer, template, max_length)
        self.token_ids = _single_tokens(self.encoder, self.verbalizers)
        names = tuple(range(len(self.verbalizers))) if labels is None else tuple(labels)
        if len(set(names)) != len(self.verbalizers):
            raise ArgumentError("labels", names, f"{len(self.verbalizers)} different values")
        self.labels: tuple[str | int, ...] = names

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Token ids of each text in its template, and its class."""
        rows = self.encoder([example["text"] for example in examples])
        return [Encoded(ids, self._class(example)) for ids, example in zip(rows, examples, strict=True)]

    def head(self, model: nn.Module) -> VerbalizerHead:
        """Logits of the verbalizers, ``[B, n]``."""
        return VerbalizerHead(model, self.token_ids, self.padding)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy among the verbalizers, in nats."""
        return F.cross_entropy(outputs, batch["labels"].to(outputs.device))

    def score(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy, 1 where the largest logit is the label's, and 1 prediction an example."""
        labels = batch["labels"].to(outputs.device)
        losses = F.cross_entropy(outputs, labels, reduction="none")
        return losses, (outputs.argmax(1) == labels).float(), torch.ones_like(losses)

    @torch.no_grad()
    def predictions(self, model: nn.Module, examples: Sequence[Example], batch_size: int = 16) -> list[dict[str, Any]]:
        """Text, label, predicted label and the probability of each class, one dict an example."""
        head = self.head(model)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            with evaluating(head):
                probabilities = head(**self.collate(part)).softmax(1)
            for example, classes in zip(part, probabilities.tolist(), strict=True):
                best = max(range(len(classes)), key=classes.__getitem__)
                known = dict(zip(self.labels, classes, strict=True))
                rows.append(
                    {
                        "text": example["text"],
                        "label": example["label"],
                        "predicted": self.labels[best],
                        "probabilities": known,
                    }
                )
        return rows

    def _class(self, example: Example) -> int:
        label = example.get("label")
        if label not in self.labels:
            raise ArgumentError("label", label, "one of " + ", ".join(map(repr, self.labels)))
        return self.labels.index(label)


def _single_tokens(encoder: Encoder, verbalizers: tuple[str, ...]) -> list[int]:
    """The token each verbalizer becomes after the template; tokens may depend on what precedes them."""
    if len(verbalizers) < 2:
        raise ArgumentError("verbalizers", verbalizers, "at least two, one a class")
    context = encoder.render("It")
    before = plain_ids(encoder.tokenizer, [context])[0]
    found: list[int] = []
    for verbalizer in verbalizers:
        ids = plain_ids(encoder.tokenizer, [context + verbalizer])[0]
        added = ids[len(before) :]
        if ids[: len(before)] != before:
            raise ArgumentError("verbalizers", verbalizer, f"a separate token, but it merges into {encoder.template!r}")
        if len(added) != 1:
            tokens = encoder.tokenizer.convert_ids_to_tokens(added)
            raise ArgumentError(
                "verbalizers", verbalizer, f"a single token; this tokenizer makes {len(added)}: {tokens}"
            )
        if added[0] in found:
            other = verbalizers[found.index(added[0])]
            raise ArgumentError("verbalizers", verbalizer, f"a token different from that of {other!r}")
        found.append(added[0])
    unknown = encoder.tokenizer.unk_token_id
    if unknown is not None and unknown in found:
        missing = verbalizers[found.index(unknown)]
        raise ArgumentError("verbalizers", missing, "a word that this tokenizer knows")
    return found
