import json

import pytest
from typer.testing import CliRunner

from covector.cli.shell import app
from covector.evidence import Evidence

runner = CliRunner(env={"COLUMNS": "160"})


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_shows_the_claim_beside_the_measurement_and_writes_both(write_paper, tmp_path):
    write_paper("gam")
    done = runner.invoke(app, ["reproduce", "gam"])
    assert done.exit_code == 0, done.output
    assert "Gradient Norm Aware Minimization" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("It is smaller")]
    assert row.split()[3:] == ["smaller", "1", "2", "loss", "holds"]
    folder = tmp_path / "runs" / "evidence" / "gam"
    assert Evidence.read(folder / "evidence.json").verdict == "holds"
    assert (folder / "loss-by-step.svg").is_file()


def test_a_claim_that_does_not_hold_is_a_result_and_not_a_failure(write_paper):
    write_paper("gam", False)
    done = runner.invoke(app, ["reproduce", "gam"])
    assert done.exit_code == 0
    assert "verdict: does not hold" in done.stdout


def test_an_experiment_that_raises_exits_with_1_and_its_error(write_module):
    write_module("gam", "raise ValueError('no [data] here')")
    done = runner.invoke(app, ["reproduce", "gam"])
    assert done.exit_code == 1
    assert "did not run: ValueError: no [data] here" in done.stdout
    assert "Traceback" not in done.output


def test_budget_and_seed_reach_the_experiment(write_module):
    body = "return Evidence('gam', [Finding('a', 'b', budget.choose(1, 2), budget.seed, 'c', None, 'd')])"
    write_module("gam", body)
    done = runner.invoke(app, ["reproduce", "gam", "--budget", "full", "--seed", "5", "--json"])
    record = json.loads(done.stdout)
    assert (record["budget"], record["seed"]) == ("full", 5)
    assert (record["findings"][0]["measured"], record["findings"][0]["baseline"]) == (2, 5)


def test_json_is_one_line_a_paper_and_nothing_else(write_paper, write_module):
    write_paper("gam")
    write_module("diff2", "raise ValueError('no data')")
    done = runner.invoke(app, ["reproduce", "gam", "diff2", "--json"])
    assert done.exit_code == 1
    assert done.stderr == ""
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["slug"], record["verdict"]) for record in records] == [
        ("gam", "holds"),
        ("diff2", "did not run"),
    ]


def test_all_runs_every_working_paper_even_after_one_failed(write_paper, write_module):
    write_module("fedkseed", "raise ValueError('no data')")
    write_paper("gam")
    write_paper("diff2", False)
    done = runner.invoke(app, ["reproduce", "--all"])
    assert done.exit_code == 1
    overview = done.stdout.split("Overview")[1]
    assert [line.split()[0] for line in overview.splitlines()[2:] if line] == ["fedkseed", "gam", "diff2"]


def test_all_without_any_evidence_says_so(write_module):
    done = runner.invoke(app, ["reproduce", "--all"])
    assert done.exit_code == 0
    assert done.stdout == "No paper has evidence yet.\n"


def test_the_site_is_built_from_this_run_and_the_earlier_ones(write_paper, write_module, tmp_path):
    write_paper("gam")
    write_paper("diff2")
    assert runner.invoke(app, ["reproduce", "gam", "diff2", "--out", "results"]).exit_code == 0
    write_module("gam", "raise ValueError('no data')")
    done = runner.invoke(app, ["reproduce", "gam", "--out", "results", "--site", "site"])
    assert done.exit_code == 1
    pages = {slug: (tmp_path / "site" / "papers" / f"{slug}.html").read_text() for slug in ("gam", "diff2")}
    assert ">did not run</span></h1>" in pages["gam"]
    assert ">holds</span></h1>" in pages["diff2"]


def test_a_paper_named_twice_runs_once(write_paper):
    write_paper("gam")
    assert len(runner.invoke(app, ["reproduce", "gam", "gam", "--json"]).stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either papers by name or --all"),
        (["gam", "--all"], "either papers by name or --all"),
        (["gamm"], "did you mean 'gam'"),
        (["gam", "diff2"], "'diff2': expected a paper that has evidence"),
        (["gam", "--budget", "tiny"], "budget='tiny': expected 'smoke' or 'full'"),
    ],
)
def test_a_wrong_call_runs_nothing_and_says_what_would_work(write_paper, tmp_path, arguments, message):
    write_paper("gam")
    done = runner.invoke(app, ["reproduce", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
