"""The finetune and patch commands, end to end on a tiny model."""

import json

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from covector import trees
from covector.cli.shell import app


def covector(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(folder, texts, tmp_path):
    out = tmp_path / "run"
    options = ["--by", "store", "--rounds", 3, "--seeds", 256, "--lr", 0.02, "--batch-size", 8, "--out", out]
    result = covector("finetune", "--model", folder, "--data", texts, *options)
    assert result.exit_code == 0, result.output
    return out, result


def digest(folder):
    return trees.digest(dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters()))


def test_finetune_prints_a_summary_and_where_things_are(run):
    out, result = run
    assert "base model" in result.output
    assert "report.html" in result.output
    assert json.loads((out / "results.json").read_text())["patch_bytes"] < 2000


def test_a_private_run_says_its_epsilon(folder, texts, tmp_path):
    result = covector(
        "finetune", "--model", folder, "--data", texts, "--by", "store", "--rounds", 2, "--seeds", 64,
        "--dp-noise", 4, "--dp-clip", 1, "--out", tmp_path, "--no-save-model",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    spent = json.loads((tmp_path / "results.json").read_text())["methods"]["sketch"]["privacy"]["epsilon"]
    assert f"epsilon {spent:.3g} at delta 1e-05" in result.output


def test_patch_apply_gives_the_bits_of_the_saved_model(run, folder, tmp_path):
    out, _ = run
    applied = covector("patch", "apply", out / "model.patch", "--model", folder, "--out", tmp_path / "again")
    assert applied.exit_code == 0, applied.output
    assert digest(tmp_path / "again") == digest(out / "model") != digest(folder)


def test_patch_made_from_the_journal_equals_the_one_of_the_run(run, folder, tmp_path):
    out, _ = run
    made = covector("patch", "make", out / "sketch.journal", "--model", folder, "--out", tmp_path / "made.patch")
    assert made.exit_code == 0, made.output
    covector("patch", "apply", tmp_path / "made.patch", "--model", folder, "--out", tmp_path / "made")
    assert digest(tmp_path / "made") == digest(out / "model")


def test_patch_on_the_wrong_base_is_refused_by_name_and_hash(run, folder, tmp_path):
    out, _ = run
    wrong = covector("patch", "apply", out / "model.patch", "--model", out / "model", "--out", tmp_path / "wrong")
    assert wrong.exit_code == 2
    assert digest(folder)[:16] in wrong.output.replace("\n", "")
    assert not (tmp_path / "wrong").exists()


def test_patch_info_merge_and_undo(run, folder, tmp_path):
    out, _ = run
    patch = out / "model.patch"
    assert "SketchPool" in covector("patch", "info", patch).output
    merged = covector("patch", "merge", patch, patch, "--out", tmp_path / "twice.patch")
    assert merged.exit_code == 0, merged.output
    undone = covector("patch", "undo", patch, "--model", out / "model", "--out", tmp_path / "base")
    assert undone.exit_code == 0, undone.output
    before = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "base").named_parameters())
    assert all((p - after[name]).abs().max() < 1e-6 for name, p in before.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "adam"], "method='adam'"),
        (["--preset", "huge"], "preset='huge'"),
        (["--engine", "mpi"], "engine='mpi'"),
        (["--engine", "flower", "--method", "lora"], "engine='flower'"),
        (["--nodes", "3"], "nodes=3"),
        (["--round-timeout", "5"], "round_timeout=5.0"),
        (["--dp-noise", "2"], "dp_clip=0.0"),
        (["--screen-bound", "0.5"], "screen_bound=0.5"),
        (["--compare", "kseed,adam"], "compare='adam'"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_wrong_options_exit_with_2_and_name_themselves(arguments, message, tmp_path):
    result = covector("finetune", *arguments, "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")
