"""A language model of a few thousand parameters, made in milliseconds: for examples, tests and first trials.

It has random weights and knows nothing, but it is a real Llama of transformers with a real tokenizer, so
whatever runs on it runs on a large one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from covector.errors import ArgumentError, require_extra

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["tiny_model"]

_SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
_CHAT = (
    "{% for m in messages %}user: {{ m['content'] }} [EOS] {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tiny_model(
    text: str, width: int = 32, layers: int = 2, tied: bool = True, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small random Llama in evaluation mode, and a tokenizer whose tokens are the words of ``text``.

    Args:
        text: its words, parted by white space, are the vocabulary; any other word is unknown.
        width: of the hidden states, a multiple of 8.
        layers: number of layers.
        tied: whether input and output embeddings are one matrix.
        seed: of the weights; torch's global generator is left as it was.

    Returns:
        ``(model, tokenizer)``, as :func:`load_model` gives them.

    >>> model, tokenizer = tiny_model("it was great")
    >>> tokenizer("it was great").input_ids, model.num_parameters() < 30_000
    ([4, 5, 6], True)
    """
    if width < 8 or width % 8:
        raise ArgumentError("width", width, "a positive multiple of 8")
    if layers < 1:
        raise ArgumentError("layers", layers, "a whole number of at least 1")
    require_extra("transformers", "language")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _word_tokenizer(text)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return model.eval(), tokenizer


def _word_tokenizer(text: str) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys([*_SPECIAL, *text.split()])
    layout = {
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "[UNK]",
        },
        "pre_tokenizer": {"type": "WhitespaceSplit"},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(json.dumps(layout), encoding="utf-8")
        return PreTrainedTokenizerFast(
            tokenizer_file=str(file),
            pad_token="[PAD]",
            unk_token="[UNK]",
            bos_token="[BOS]",
            eos_token="[EOS]",
            chat_template=_CHAT,
        )
