"""A comparison: equal budgets, the same results however it is run, nothing run twice, divergence ranked last."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from torch import nn

from covector.compare import Event, Result, Settings, Trial, compare, find_task, resolve, run_trial
from covector.compare.journal import Journal
from covector.compare.ranking import interval
from covector.compare.tuning import Grid, Optuna
from covector.errors import ArgumentError, CorruptionError


def settings(*optimizers: str, **options: object) -> Settings:
    chosen: dict[str, object] = {"steps": 20, "seeds": 2, "budget": 4, **options}
    return Settings("regression", optimizers or ("adamw", "torch.SGD"), **chosen)  # type: ignore[arg-type]


class Explodes(torch.optim.SGD):
    """Multiplies parameters until they are no numbers."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1e30)


class Refuses(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no step today")


@pytest.fixture
def own_optimizers(monkeypatch):
    monkeypatch.setattr(torch.optim, "Explodes", Explodes, raising=False)
    monkeypatch.setattr(torch.optim, "Refuses", Refuses, raising=False)


@pytest.mark.parametrize("task", ["regression", "charlm", "transformer"])
def test_a_trial_is_a_function_of_its_description(task):
    trial = Trial(task, "adamw", 0.01, 3, 3, "cosine")
    one, two = run_trial(trial), run_trial(trial)
    assert (one.value, one.training, one.validation) == (two.value, two.training, two.validation)
    assert math.isfinite(one.value)
    assert one.state_bytes == 8.0
    other = run_trial(Trial(task, "adamw", 0.01, 4, 3, "cosine"))
    assert other.value != one.value


def test_a_trial_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    run_trial(Trial("regression", "adamw", 0.01, 0, 2, "constant"))
    assert torch.equal(torch.rand(1), expected)


def test_all_optimizers_get_the_same_budget_and_seeds(tmp_path, own_optimizers):
    events: list[Event] = []
    compare(settings("adamw", "torch.SGD", "torch.Adagrad"), tmp_path, listeners=[events.append])
    tuned = Counter(event.trial.optimizer for event in events if event.trial.seed == 0)
    tested = {
        name: sorted(e.trial.seed for e in events if e.trial.seed and e.trial.optimizer == name) for name in tuned
    }
    assert set(tuned.values()) == {4}
    assert len(tuned) == 3
    assert all(seeds == [1, 2] for seeds in tested.values())
    assert len({event.trial.key for event in events}) == len(events) == 18


def test_the_ranking_is_by_the_mean_over_the_seeds(tmp_path):
    comparison = compare(settings("adamw", "torch.SGD", "torch.Adagrad"), tmp_path)
    losses = [row.loss for row in comparison.rows]
    assert losses == sorted(losses)
    first, second = comparison.rows[:2]
    assert first.behind is None
    assert second.behind[0] == pytest.approx(second.loss - first.loss)
    assert first.low < first.loss < first.high
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert [row["optimizer"] for row in recorded["rows"]] == [row.optimizer for row in comparison.rows]
    report = (tmp_path / "report.html").read_text()
    assert report.count("<svg") == 4
    assert all(row.optimizer in report for row in comparison.rows)


def test_what_diverges_or_fails_is_ranked_last_and_says_why(tmp_path, own_optimizers):
    comparison = compare(settings("torch.Explodes", "torch.Refuses", "adamw"), tmp_path)
    assert comparison.rows[0].optimizer == "adamw"
    notes = {row.optimizer: row.note for row in comparison.rows[1:]}
    assert "diverged at every rate" in notes["torch.Explodes"]
    assert "no step today" in notes["torch.Refuses"]
    assert "Explodes" in (tmp_path / "report.html").read_text()
    assert all(row["loss"] is None for row in json.loads((tmp_path / "results.json").read_text())["rows"][1:])


def test_a_resumed_run_runs_nothing_twice(tmp_path):
    first = compare(settings(), tmp_path)
    again = compare(settings(), tmp_path, resume=True)
    assert (first.ran, again.ran) == (12, 0)
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in first.rows]
    more = compare(settings(seeds=3), tmp_path, resume=True)
    assert more.ran == 2
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert len(lines) == len({json.dumps(json.loads(line)["trial"]) for line in lines}) == 14


def test_a_folder_with_trials_is_not_overwritten(tmp_path):
    compare(settings(budget=1, seeds=1), tmp_path)
    with pytest.raises(ArgumentError, match="--resume"):
        compare(settings(budget=1, seeds=1), tmp_path)


def test_a_line_cut_off_by_a_kill_is_run_again_and_other_damage_is_named(tmp_path):
    compare(settings(budget=1, seeds=1), tmp_path)
    path = tmp_path / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-40])
    assert compare(settings(budget=1, seeds=1), tmp_path, resume=True).ran == 1
    assert len(path.read_text().splitlines()) == len(whole.splitlines())
    path.write_text("{}\n" + whole)
    with pytest.raises(CorruptionError, match="line 1"):
        Journal(tmp_path, resume=True)


def test_an_interrupted_run_keeps_what_is_done_and_ranks_it(tmp_path):
    def interrupt(event: Event) -> None:
        if event.trial.seed == 0 and event.trial.optimizer == "torch.SGD":
            signal.raise_signal(signal.SIGINT)

    comparison = compare(settings(), tmp_path, listeners=[interrupt])
    assert comparison.interrupted
    assert 0 < comparison.ran < 12
    assert len(comparison.rows) == 2
    assert all("unfinished" in row.note for row in comparison.rows)
    assert compare(settings(), tmp_path, resume=True).ran == 12 - comparison.ran


@pytest.mark.processes
def test_processes_give_what_one_process_gives(tmp_path):
    inline = compare(settings(), tmp_path / "inline")
    spread = compare(settings(), tmp_path / "spread", jobs=2)
    assert [(row.optimizer, row.lr, row.seeds, row.tuning) for row in inline.rows] == [
        (row.optimizer, row.lr, row.seeds, row.tuning) for row in spread.rows
    ]


@pytest.mark.processes
def test_a_task_of_the_user_runs_in_processes_also_when_one_dies(tmp_path, monkeypatch):
    (tmp_path / "mywork.py").write_text(
        "import os, torch\n"
        "def task(seed):\n"
        "    print('noise on standard output')\n"
        "    if seed == 2: os._exit(3)\n"
        "    data = [(torch.ones(4, 2), torch.zeros(4, 1))]\n"
        "    return torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, (data, data)\n"
    )
    monkeypatch.chdir(tmp_path)
    comparison = compare(Settings("mywork:task", ("adamw",), steps=5, seeds=3, budget=2), tmp_path / "out", jobs=2)
    (row,) = comparison.rows
    assert [math.isfinite(row.seeds[seed]) for seed in (1, 2, 3)] == [True, False, True]
    assert "ended with code 3" in row.note


@pytest.mark.processes
def test_a_killed_run_is_resumed(tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "covector.cli", "compare", "--task", "regression", "--optimizers", "adamw,torch.SGD",
        "--steps", "400", "--budget", "4", "--seeds", "2", "--jobs", "2", "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = out / "trials.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = journal.read_text().count("\n")
    assert done < 12
    chosen = settings(steps=400)
    resumed = compare(chosen, out, resume=True)
    assert resumed.ran == 12 - done
    straight = compare(chosen, tmp_path / "straight")
    assert [(row.optimizer, row.seeds) for row in resumed.rows] == [(row.optimizer, row.seeds) for row in straight.rows]


@pytest.mark.parametrize("start", [1e-4, 1.0, 300.0])
def test_the_grid_finds_a_minimum_far_from_its_start(start):
    grid = Grid(start, budget=10)
    while rates := grid.ask():
        for lr in rates:
            grid.tell(lr, abs(math.log2(lr / 0.05)))
    best = min(grid.tried, key=grid.tried.get)
    assert len(grid.tried) == 10
    assert 0.025 < best < 0.1
    assert not grid.at_edge


def test_the_grid_goes_down_where_everything_diverges():
    grid = Grid(1.0, budget=6)
    while rates := grid.ask():
        for lr in rates:
            grid.tell(lr, math.inf)
    assert len(grid.tried) == 6
    assert max(grid.tried) == 2.0


def test_optuna_spends_the_same_budget_and_repeats_itself():
    def tried() -> dict[float, float]:
        tuner = Optuna(1e-3, budget=6)
        while rates := tuner.ask():
            for lr in rates:
                tuner.tell(lr, math.inf if lr > 0.03 else abs(math.log2(lr / 0.01)))
        return tuner.tried

    assert tried() == tried()
    assert len(tried()) == 6


def test_intervals_are_students():
    low, high = interval([1.0, 2.0, 4.0, 5.0])
    deviation = math.sqrt((4 + 1 + 1 + 4) / 3)
    assert high - low == pytest.approx(2 * 3.182 * deviation / 2)
    assert low + high == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"task": "nothing"}, "task"),
        ({"task": "no_such_module:task"}, "task"),
        ({"task": "charlm:brown"}, "task"),
        ({"optimizers": ("nothing",)}, "optimizers"),
        ({"optimizers": ("torch.Nothing",)}, "optimizers"),
        ({"optimizers": ("adamw(0.1)",)}, "optimizers"),
        ({"optimizers": ()}, "optimizers"),
        ({"steps": 0}, "steps"),
        ({"schedule": "sometimes"}, "schedule"),
        ({"tuner": "guess"}, "tuner"),
    ],
    ids=str,
)
def test_what_cannot_work_is_named(options, argument):
    with pytest.raises(ArgumentError) as caught:
        Settings(**{"task": "regression", "optimizers": ("adamw",), **options})
    assert caught.value.argument == argument


def test_a_function_that_returns_something_else_is_named(tmp_path, monkeypatch):
    (tmp_path / "mistaken.py").write_text("def task():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="model, loss"):
        find_task("mistaken:task")(0)


def test_the_convolutional_network_learns_digits():
    result = run_trial(Trial("cnn", "adamw", 0.01, 0, 40, "cosine"))
    assert isinstance(result, Result)
    assert result.loss < 1.0


def test_torch_muon_is_given_matrices_and_adam_the_rest():
    from covector.compare import build

    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    pair = build("torch.Muon", model, 0.1)
    assert [len(group["params"]) for group in pair.param_groups] == [2, 6 - 1]


def test_all_are_ours():
    found = resolve("all")
    assert {"adam", "adamw"} <= set(found)
    assert all("." not in name for name in found)
