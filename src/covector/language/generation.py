"""Text from a model, for the samples of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from covector.errors import ArgumentError
from covector.language.encoding import Encoder, pad_rows
from covector.training.modes import evaluating, seeded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["generate"]


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[str]:
    """How the model goes on after each prompt, without the prompt.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        prompts: texts, not empty, already in whatever template the model expects.
        max_new_tokens: most tokens of a continuation.
        temperature: 0 takes the likeliest token each time; above 0 samples.
        seed: of the sampling; torch's global generator is left as it was.
        batch_size: prompts at a time.

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("one two three")
    >>> len(generate(model, tokenizer, ["one", "one two"], max_new_tokens=3))
    2
    """
    if max_new_tokens < 1:
        raise ArgumentError("max_new_tokens", max_new_tokens, "a whole number of at least 1")
    if temperature < 0:
        raise ArgumentError("temperature", temperature, "a number of at least 0")
    encoder = Encoder(tokenizer, max_length=1 << 20)
    rows = encoder(list(prompts))
    empty = [number for number, row in enumerate(rows) if not row]
    if empty:
        raise ArgumentError("prompts", prompts[empty[0]], "a text of at least one token")
    with evaluating(model), seeded(seed, next(model.parameters()).device):
        return [
            text
            for start in range(0, len(rows), batch_size)
            for text in _one_batch(model, tokenizer, rows[start : start + batch_size], max_new_tokens, temperature)
        ]


def _one_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[list[int]],
    max_new_tokens: int,
    temperature: float,
) -> list[str]:
    device = next(model.parameters()).device
    input_ids = pad_rows(rows, tokenizer.pad_token_id, "left").to(device)
    mask = pad_rows([[1] * len(row) for row in rows], 0, "left").to(device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    out = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    return list(tokenizer.batch_decode(out[:, input_ids.shape[1] :], skip_special_tokens=True))
