import json
import sys
import types

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import covector
from covector import errors
from covector.errors import ArgumentError, DataError, MissingExtraError
from covector.language import VerbalizerTask, load_model, save_model


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    return save_model(model, tokenizer, tmp_path / "model")


@pytest.mark.parametrize("fixture", ["model", "untied_model"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_loads_to_the_same_bits(fixture, dtype, tokenizer, tmp_path, request):
    model = request.getfixturevalue(fixture).to(dtype)
    save_model(model, tokenizer, tmp_path / "a" / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model", dtype=dtype)
    state, again = model.state_dict(), loaded.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[name], again[name]) for name in state)
    tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert tied == (fixture == "model")


def test_the_tokenizer_and_its_chat_template_are_saved(folder, tokenizer):
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded("this film was great").input_ids == tokenizer("this film was great").input_ids
    assert loaded.chat_template == tokenizer.chat_template


def test_saving_again_replaces_and_leaves_nothing_behind(folder, model, tokenizer):
    (folder / "notes.txt").write_text("kept")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"stale")
    with torch.no_grad():
        model.model.norm.weight.fill_(7.0)
    save_model(model, tokenizer, folder)
    loaded, _ = load_model(folder)
    assert loaded.model.norm.weight.unique().item() == 7.0
    assert (folder / "notes.txt").read_text() == "kept"
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert not list(folder.parent.glob("*.partial"))


def test_saving_to_a_file_is_refused(model, tokenizer, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ArgumentError, match="this is a file"):
        save_model(model, tokenizer, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_failed_save_leaves_the_old_files(folder, model, tokenizer, monkeypatch):
    def fail(_):
        raise OSError("disk full")

    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model, tokenizer, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.float16])
def test_a_folder_loads_in_evaluation_mode_and_the_dtype_asked_for(folder, dtype):
    model, tokenizer = load_model(folder, dtype=dtype)
    assert not any(module.training for module in model.modules())
    assert model.dtype == (dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype))
    assert tokenizer.pad_token == "[PAD]"


def test_a_path_as_string_and_an_attention_implementation_work(folder):
    model, _ = load_model(str(folder), attention="eager")
    assert model.config._attn_implementation == "eager"


def test_a_missing_pad_token_becomes_the_end_token(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model, tokenizer = load_model(folder)
    assert tokenizer.pad_token == "[EOS]"
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.eos_token_id


def test_a_catalog_name_comes_from_the_data_module(folder, monkeypatch):
    asked = []
    catalog = types.SimpleNamespace(get=lambda name: asked.append(name) or folder)
    monkeypatch.setitem(sys.modules, "covector.data", catalog)
    monkeypatch.setattr(covector, "data", catalog, raising=False)
    load_model()
    load_model("another-model")
    assert asked == ["smollm2-135m-instruct", "another-model"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "no config.json"), ("model.safetensors", r"no \*\.safetensors"), ("tokenizer.json", "load")],
)
def test_a_folder_that_lacks_a_file_is_refused(folder, missing, message):
    (folder / missing).unlink()
    if missing == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match=message):
        load_model(folder)


def test_a_broken_config_or_weights_is_a_data_error(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_model(folder)
    (folder / "config.json").write_text(text)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="does not load"):
        load_model(folder)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(DataError, match="it has nothing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"), [({"dtype": "int4"}, "dtype='int4'"), ({"device": "abacus"}, "device='abacus'")]
)
def test_impossible_arguments_are_refused(folder, options, message):
    with pytest.raises(ArgumentError, match=message):
        load_model(folder, **options)


def test_a_missing_library_names_the_extra(folder, monkeypatch):
    def absent(package, extra):
        raise MissingExtraError(package, extra)

    monkeypatch.setattr("covector.language.models.require_extra", absent)
    with pytest.raises(errors.MissingExtraError, match=r"covector\[language\]"):
        load_model(folder)


def test_a_loaded_model_scores_as_the_saved_one(folder, model, labeled):
    loaded, tokenizer = load_model(folder)
    task = VerbalizerTask(tokenizer)
    assert task.evaluate(loaded, labeled).loss == task.evaluate(model, labeled).loss
