"""Instruction tuning: predict a completion from a prompt; the prompt itself costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.language.encoding import IGNORED, Batch, Encoded, Encoder, Padding, plain_ids
from covector.language.examples import Example
from covector.language.generation import generate
from covector.language.heads import TokenHead
from covector.language.metrics import Metric
from covector.language.tasks.task import TokenizedTask
from covector.language.tasks.tokens import token_loss, token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CompletionTask"]

_MARK = "\u2060covector-prompt\u2060"


class CompletionTask(TokenizedTask):
    """Next-token loss on the completions of ``{"prompt", "completion"}`` examples.

    Args:
        tokenizer: the model's tokenizer.
        max_length: most tokens of prompt and completion. A completion may take all that the template leaves
            and loses its end beyond that; the prompt gets the rest and loses its end.
        chat: ``True`` puts the prompt into the tokenizer's chat template, as the user's turn; ``False`` puts
            the completion right behind it (a space between them belongs to one of the two).
        end: whether the completion is followed by the end token, so that the model learns to stop. An end
            token that was cut off with the end of a completion is no label.
        padding: side on which a batch is padded.

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("one two three")
    >>> CompletionTask(tokenizer).collate([{"prompt": "one two", "completion": "three"}])["labels"].tolist()
    [[-100, -100, 6, 3]]
    """

    metric: ClassVar[Metric] = "perplexity"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int = 256,
        chat: bool = False,
        end: bool = True,
        padding: Padding = "right",
    ) -> None:
        super().__init__(tokenizer, max_length, padding)
        if end and tokenizer.eos_token_id is None:
            raise ArgumentError("end", end, "False: this tokenizer has no end token")
        self.chat = chat
        self.end = end
        self.encoder = Encoder(tokenizer, _chat_template(tokenizer) if chat else "{text}", max_length)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Prompt and completion as ids; the labels of the prompt are ignored."""
        closing = [self.tokenizer.eos_token_id] if self.end else []
        room = self.max_length - max(1, self.encoder.template_length)
        bodies = plain_ids(self.tokenizer, [example["completion"] for example in examples])
        answers = [(body + closing)[:room] for body in bodies]
        prompts = self.encoder([example["prompt"] for example in examples], [len(ids) for ids in answers])
        return [
            Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def head(self, model: nn.Module) -> TokenHead:
        """Next-token logits at the positions of the completions."""
        return TokenHead(model, self.padding, select=True)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy a token of the completions, in nats."""
        return token_loss(outputs, batch["labels"])

    def score(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss a token, 1 where every token of the completion is the likeliest, number of tokens."""
        losses, right, count = token_scores(outputs, batch["labels"])
        return losses, (right == 1).float(), count

    def predictions(self, model: nn.Module, examples: Sequence[Example], batch_size: int = 16) -> list[dict[str, Any]]:
        """Prompt, expected completion, and the model's own (greedy)."""
        prompts = [self.encoder.render(example["prompt"]) for example in examples]
        said = generate(model, self.tokenizer, prompts, batch_size=batch_size)
        return [
            {"prompt": example["prompt"], "expected": example["completion"], "predicted": text}
            for example, text in zip(examples, said, strict=True)
        ]


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template with a slot where the user's message goes."""
    if not tokenizer.chat_template:
        raise ArgumentError("chat", True, "False: this tokenizer has no chat template")
    turn = [{"role": "user", "content": _MARK}]
    text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    if text.count(_MARK) != 1:
        raise ArgumentError("chat", True, "False: this chat template does not hold the message once")
    return text.replace(_MARK, "{text}")
