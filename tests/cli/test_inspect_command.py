"""covector inspect: a table, a report, and clear refusals."""

import json

import pytest
from typer.testing import CliRunner

from covector.cli.shell import app

runner = CliRunner(env={"COLUMNS": "160"})
SMALL = ["inspect", "--task", "regression", "--probes", "4", "--steps", "8"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_table_is_printed_and_a_report_written(tmp_path):
    done = runner.invoke(app, [*SMALL, "--lr", "0.1", "--train-examples", "1000"])
    assert done.exit_code == 0, done.output
    for word in ("sharpness", "largest stable lr", "stable along all directions", "suggested batch size", "1,000"):
        assert word in done.stdout
    folder = tmp_path / "runs" / "inspect"
    assert "The loss surface of" in (folder / "report.html").read_text()
    found = json.loads((folder / "results.json").read_text())["found"]
    assert found["sharpness_ratio"] == pytest.approx(0.1 * found["sharpness"] / 2)
    assert set(found["seconds"]) == {"ends", "traces", "density", "noise"}


def test_json_holds_only_what_was_asked_for():
    done = runner.invoke(app, [*SMALL, "--parts", "ends", "--json"])
    found = json.loads(done.stdout)
    assert found["top"][0] > 0
    assert found["trace"] is None
    assert found["scatter"] is None


def test_training_before_looking_is_followed(tmp_path):
    done = runner.invoke(app, [*SMALL, "--train", "30", "--lr", "0.1", "--parts", "ends", "--out", "here"])
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "here" / "results.json").read_text())
    assert results["training"][0]["step"] == 1
    assert "sharpness_ratio" in results["training"][0]


def test_a_language_model_is_looked_at_as_it_is(folder, texts):
    done = runner.invoke(
        app,
        ["inspect", "--model", str(folder), "--data", str(texts), "--batches", "2", "--batch-size", "4", "--json",
         "--parts", "ends,traces,noise", "--probes", "2"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["examples"] == 8
    assert found["top"][0] > found["bottom"]
    assert any("embed_tokens" in name for name in found["layers"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect"], "either --task or --model"),
        (["inspect", "--task", "regression", "--model", "x"], "either --task or --model"),
        ([*SMALL, "--parts", "ends,entropy"], "parts="),
        ([*SMALL, "--train", "5"], "lr=None"),
        ([*SMALL, "--batches", "0"], "batches=0"),
        (["inspect", "--task", "nowhere:task"], "nowhere:task"),
    ],
)
def test_what_cannot_be_is_one_message(arguments, words):
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output


def test_help_teaches_by_example():
    done = runner.invoke(app, ["inspect", "--help"])
    for word in ("module:function", "--train-examples", "covector inspect --task cnn"):
        assert word in done.output
