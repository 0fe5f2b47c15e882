"""A tiny random Llama and a word tokenizer, made in the process: oracles in milliseconds."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = """it was great terrible fine It this film is not bad at all good poor dull a b c d e f g h
user bot says one two three four five six seven"""
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
CHAT = (
    "{% for m in messages %}user says {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}bot says{% endif %}"
)


def make_tokenizer(begin_and_end: bool = False) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin_and_end:
        inner.post_processor = processors.TemplateProcessing(
            single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        chat_template=CHAT,
    )


def make_llama(tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def begin_end_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(begin_and_end=True)


@pytest.fixture
def model() -> LlamaForCausalLM:
    return make_llama()


@pytest.fixture
def untied_model() -> LlamaForCausalLM:
    return make_llama(tied=False)


@pytest.fixture
def labeled() -> list[dict]:
    return [
        {"text": "this film is not bad at all", "label": 1},
        {"text": "dull", "label": 0},
        {"text": "a good film", "label": 1},
        {"text": "poor a b c", "label": 0},
    ]
