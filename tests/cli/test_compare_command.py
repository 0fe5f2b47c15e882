import json

import pytest
from typer.testing import CliRunner

from covector.cli.shell import app

runner = CliRunner(env={"COLUMNS": "160"})
SMALL = ["compare", "--task", "regression", "--steps", "10", "--budget", "2", "--seeds", "2", "--jobs", "1"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_ranking_is_printed_and_a_report_written(tmp_path):
    done = runner.invoke(app, [*SMALL, "--optimizers", "adamw,torch.SGD(momentum=0.9)"])
    assert done.exit_code == 0, done.output
    rows = [line for line in done.stdout.splitlines() if "adamw" in line or "torch.SGD" in line]
    assert [line.split()[0] for line in rows if line.split()[0] in ("1", "2")] == ["1", "2"]
    folder = tmp_path / "runs" / "compare"
    assert (folder / "report.html").is_file()
    recorded = json.loads((folder / "results.json").read_text())
    assert {row["optimizer"] for row in recorded["rows"]} == {"adamw", "torch.SGD(momentum=0.9)"}


def test_a_second_run_wants_resume_and_then_only_adds():
    assert runner.invoke(app, [*SMALL, "--optimizers", "adamw"]).exit_code == 0
    refused = runner.invoke(app, [*SMALL, "--optimizers", "adamw"])
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    resumed = runner.invoke(app, [*SMALL, "--optimizers", "adamw,adam", "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert resumed.stderr.count("(from before)") == 4


def test_an_unknown_optimizer_is_one_message():
    done = runner.invoke(app, [*SMALL, "--optimizers", "adamv"])
    assert done.exit_code == 2
    assert "optimizers='adamv'" in done.output
    assert "Traceback" not in done.output


def test_help_teaches_by_example():
    done = runner.invoke(app, ["compare", "--help"])
    assert done.exit_code == 0
    for word in ("--resume", "module:function", "cosine", "covector compare --task regression"):
        assert word in done.output
