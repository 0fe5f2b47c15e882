"""Language modeling: predict every token of a text from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.language.encoding import IGNORED, Batch, Encoded, Encoder, Padding
from covector.language.examples import Example
from covector.language.generation import generate
from covector.language.heads import TokenHead
from covector.language.metrics import Metric
from covector.language.tasks.task import TokenizedTask
from covector.language.tasks.tokens import token_loss, token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CausalTask"]


class CausalTask(TokenizedTask):
    """Next-token loss on ``{"text"}`` examples.

    Args:
        tokenizer: the model's tokenizer.
        max_length: tokens a block (packed), or most tokens a text (padded).
        pack: ``True`` joins the texts, an end token after each, and cuts the stream into blocks: no token is
            lost or padded, except in the last block, and an item is a block. ``False`` makes each text one
            item, cut at ``max_length`` and padded.
        padding: side on which a batch is padded.

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("one two three")
    >>> task = CausalTask(tokenizer, max_length=4)
    >>> tokenizer.batch_decode(task.collate([{"text": "one two"}, {"text": "three one"}])["input_ids"])
    ['one two [EOS] three', 'one [EOS] [PAD] [PAD]']
    """

    metric: ClassVar[Metric] = "perplexity"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int = 128,
        pack: bool = True,
        padding: Padding = "right",
    ) -> None:
        super().__init__(tokenizer, max_length, padding)
        if pack and tokenizer.eos_token_id is None:
            raise ArgumentError("pack", pack, "False: this tokenizer has no end token to put between texts")
        self.pack = pack
        self.encoder = Encoder(tokenizer, max_length=max_length)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Blocks of the joined texts, or the texts one by one; every token but the first is a label.

        Without packing, texts of fewer than two tokens hold nothing to predict and are left out.
        """
        texts = [example["text"] for example in examples]
        rows = self._blocks(texts) if self.pack else self.encoder(texts)
        # behind padding on the left the first token would be predicted from nothing
        return [Encoded(row, [IGNORED, *row[1:]]) for row in rows if len(row) > 1]

    def head(self, model: nn.Module) -> TokenHead:
        """Next-token logits: at all positions where the batch has no padding, else at the labeled ones."""
        return TokenHead(model, self.padding, select=not self.pack)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy a token, in nats."""
        return token_loss(outputs, batch["labels"])

    def score(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss a token, fraction of tokens predicted right, number of tokens."""
        return token_scores(outputs, batch["labels"])

    def predictions(self, model: nn.Module, examples: Sequence[Example], batch_size: int = 16) -> list[dict[str, Any]]:
        """The first half of each text, how it goes on, and how the model goes on (greedily)."""
        halves = [_halves(example["text"]) for example in examples]
        prompts = [first for first, _ in halves]
        said = generate(model, self.tokenizer, prompts, batch_size=batch_size)
        return [
            {"prompt": first, "expected": second, "predicted": text}
            for (first, second), text in zip(halves, said, strict=True)
        ]

    def _blocks(self, texts: Sequence[str]) -> list[list[int]]:
        end = self.tokenizer.eos_token_id
        stream = list(chain.from_iterable([*ids, end] for ids in self.encoder.unlimited(texts)))
        return [stream[start : start + self.max_length] for start in range(0, len(stream), self.max_length)]


def _halves(text: str) -> tuple[str, str]:
    words = text.split(" ")
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]), " " + " ".join(words[middle:]) if words[middle:] else ""
