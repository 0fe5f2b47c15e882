"""Fixtures for all tests: a tiny real model in a Hugging Face folder, and labeled texts of two clients."""

import json

import pytest
import torch

GOOD, BAD = ["good", "fine", "lovely", "bright"], ["bad", "dull", "poor", "grim"]
WORDS = ["<pad>", "<unk>", "It", "was", "great", "terrible", "film", "shop", "a", "the", "very", *GOOD, *BAD]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny-llama")
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>").save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "reviews.jsonl"
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(240):
        label = i % 2
        words = GOOD if label else BAD
        pick = torch.randint(0, 4, (2,), generator=generator).tolist()
        store = "film" if i % 3 else "shop"
        rows.append(
            {"text": f"a very {words[pick[0]]} {store} the {words[pick[1]]} {i}", "label": label, "store": store}
        )
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path
