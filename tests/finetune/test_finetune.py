"""The whole job on a tiny model: quality, files, bits, resume, wrong use."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from covector import finetune as ft
from covector import trees
from covector.errors import ArgumentError, DataError, MismatchError
from covector.gradients.patch import Patch

FEDERATED = ["sketch", "sketch-zo", "kseed", "kseed-pro"]


def settings(folder, texts, method="sketch", **values):
    rates = {
        "sketch": 2e-2,
        "sketch-zo": 6e-3,
        "kseed": 5e-3,
        "kseed-pro": 5e-3,
        "mezo": 5e-3,
        "backprop": 1e-2,
        "lora": 2e-2,
    }
    base = {"rounds": 4, "local_steps": 2, "seeds": 256, "lr": rates[method], "batch_size": 8, "check_every": 2}
    return ft.Settings(model=str(folder), data=str(texts), by="store", method=method, **{**base, **values})


@pytest.mark.parametrize("method", list(ft.METHODS))
def test_every_method_runs_and_leaves_its_files(method, folder, texts, tmp_path):
    seen = []
    outcome = ft.finetune(settings(folder, texts, method), tmp_path, listeners=[seen.append])
    assert [record.round for record in seen] == [0, 1, 2, 3, 4]
    assert seen[-1].validation is not None
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"][method]["test"]["overall"]["n"] == outcome.base.overall.n > 20
    assert "Methods side by side" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
    assert (tmp_path / "model.patch").exists() == (method in FEDERATED)


@pytest.mark.parametrize("method", ["sketch", "backprop"])
def test_first_order_methods_learn_the_task(method, folder, texts, tmp_path):
    outcome = ft.finetune(settings(folder, texts, method, rounds=15), tmp_path, save=False)
    assert outcome.main.test.overall.accuracy > 0.85
    assert outcome.base.overall.accuracy < 0.7


def test_zeroth_order_lowers_the_loss(folder, texts, tmp_path):
    outcome = ft.finetune(settings(folder, texts, "sketch-zo", rounds=40, local_steps=8), tmp_path, save=False)
    assert outcome.main.test.overall.loss < outcome.base.overall.loss - 0.05


@pytest.mark.parametrize("method", FEDERATED)
def test_the_patch_reproduces_the_saved_model_bit_for_bit(method, folder, texts, tmp_path):
    outcome = ft.finetune(settings(folder, texts, method), tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder)
    params = {name: p for name, p in base.named_parameters()}
    Patch.load(outcome.patch).apply(params, out=params)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert trees.digest(params) == trees.digest(dict(saved.named_parameters())) == outcome.main.digest
    before = load_file(folder / "model.safetensors")
    assert any(not torch.equal(p, before[name]) for name, p in params.items() if name in before)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(folder, texts, tmp_path):
    digests = [
        ft.finetune(settings(folder, texts, "kseed", seed=seed), tmp_path / str(i), save=False).main.digest
        for i, seed in enumerate((3, 3, 4))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("method", ["sketch", "kseed"])
def test_a_run_that_was_stopped_resumes_to_the_same_bits(method, folder, texts, tmp_path):
    straight = ft.finetune(settings(folder, texts, method), tmp_path / "straight", save=False)

    class Stop(Exception):
        pass

    def stop(record):
        if record.round == 2:
            raise Stop

    with pytest.raises(Stop):
        ft.finetune(settings(folder, texts, method), tmp_path / "stopped", listeners=[stop], save=False)
    resumed = ft.finetune(settings(folder, texts, method), tmp_path / "stopped", resume=True, save=False)
    assert resumed.main.digest == straight.main.digest
    assert [r.round for r in resumed.main.records] == [0, 1, 2, 3, 4]


def test_resuming_with_other_settings_is_refused_by_name(folder, texts, tmp_path):
    ft.finetune(settings(folder, texts), tmp_path, save=False)
    with pytest.raises(MismatchError, match="--resume"):
        ft.finetune(settings(folder, texts), tmp_path, save=False)
    with pytest.raises(MismatchError, match="lr"):
        ft.finetune(settings(folder, texts, lr=1.0), tmp_path, resume=True, save=False)


def test_compared_methods_start_from_the_same_base(folder, texts, tmp_path):
    outcome = ft.finetune(settings(folder, texts), tmp_path, compare=["kseed"], save=False)
    first = [result.records[0].validation for result in outcome.results.values()]
    assert list(outcome.results) == ["sketch", "kseed"]
    assert first[0] == first[1]


def test_calibration_moves_only_the_threshold():
    from covector.language import Scores

    margins = torch.tensor([3.0, 4.0, 5.0, 6.0]).double()  # right order, all on one side
    examples = {"a": [{"label": 0}, {"label": 0}, {"label": 1}, {"label": 1}]}
    labels = torch.tensor([0, 0, 1, 1])
    losses = torch.nn.functional.softplus(-margins * (2 * labels - 1))
    scores = Scores(losses, ((margins > 0) == (labels == 1)).double(), torch.ones(4).double(), "accuracy")
    card = ft.Scorecard({"a": scores})
    assert card.overall.accuracy == 0.5
    # the lower of the two middle log-odds is the median: 4 itself is not above it
    assert ft.calibrated_accuracy(card, examples, card, examples) == 1.0


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"method": "sgd"}, ArgumentError, "method='sgd'"),
        ({"rounds": -1}, ArgumentError, "rounds=-1"),
        ({"lr": float("nan")}, ArgumentError, "lr="),
        ({"wire": "fast"}, ArgumentError, "wire='fast'"),
        ({"clients": 0}, ArgumentError, "clients=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, error, message):
    with pytest.raises(error, match=message):
        ft.Settings(**values)


def test_unknown_data_is_refused_with_what_there_is(folder, tmp_path):
    with pytest.raises(ArgumentError, match="sentiment"):
        ft.finetune(ft.Settings(model=str(folder), data="nope"), tmp_path)
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        ft.finetune(ft.Settings(model=str(folder), data="missing.jsonl"), tmp_path / "b")
