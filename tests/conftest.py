"""Fixtures for all tests: a tiny real model, labeled texts of two clients, evidence modules of one test only."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from covector.evidence import registry

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


TEMPLATE = """
from covector.evidence import Budget, Evidence, Finding, figure, paper

@paper({slug!r}, parts=["covector.errors.CovectorError"])
def evidence(budget):
{body}
"""


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write the evidence module of a paper, given the body of its function."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setattr(registry, "folder", folder)

    def write(slug: str, body: str) -> Path:
        path = folder / f"{slug.replace('-', '_')}.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        path.write_text(TEMPLATE.format(slug=slug, body=lines), encoding="utf-8")
        return path

    return write


HOLDS = """
path = budget.path("loss-by-step.svg")
with figure(path, x="step", y="loss") as axes:
    axes.plot([0, 1], [2.0, 1.0])
finding = Finding("It is smaller", "smaller", 1.0, 2.0, "loss", {holds}, "two points")
return Evidence({slug!r}, [finding], [path])
"""


@pytest.fixture
def write_paper(write_module: Callable[[str, str], Path]) -> Callable[[str, bool | None], Path]:
    """Write the evidence module of a paper that draws one figure and has one finding."""

    def write(slug: str, holds: bool | None = True) -> Path:
        return write_module(slug, HOLDS.format(slug=slug, holds=holds))

    return write
