import io
import json
import subprocess
import sys

import pytest
import torch

from covector import ZerothOrder, train
from covector.training import Callback, JsonLines
from covector.training.progress import ProgressBar


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_one_json_object_a_line(make_problem, tmp_path):
    objective, batches = make_problem()
    history = train(
        objective, batches, lr=0.1, steps=3, evaluate=lambda f: {"accuracy": 0.5}, clip_norm=1.0, out=tmp_path
    )
    found = lines(tmp_path)
    assert [line["kind"] for line in found] == ["step", "step", "step", "evaluation"]
    assert [line["loss"] for line in found[:3]] == history.losses
    assert set(found[0]) == {"kind", "step", "loss", "seconds", "lr", "norm"}
    assert found[3] == {"kind": "evaluation", "step": 3, "accuracy": 0.5}


def test_a_run_that_died_after_its_checkpoint_writes_each_step_once(make_problem, tmp_path):
    class Die(Callback):
        def on_step(self, run, record):
            if record["step"] == 6:
                raise RuntimeError("power cut")

    objective, batches = make_problem()
    with pytest.raises(RuntimeError, match="power cut"):
        train(objective, batches, lr=0.1, steps=9, out=tmp_path, checkpoint_every=4, callbacks=[Die()])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # torn
    objective, batches = make_problem()
    history = train(objective, batches, lr=0.1, steps=9, out=tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 10))
    assert [line["loss"] for line in lines(tmp_path)] == history.losses


def test_tensorboard_events_are_the_history(make_problem, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    objective, batches = make_problem()
    options = {"lr": 0.1, "out": tmp_path, "evaluate": lambda f: 0.25, "evaluate_every": 2}
    train(objective, batches, steps=4, **options)
    history = train(objective, batches, steps=6, **options)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(history.losses)
    assert [e.step for e in events.Scalars("evaluation/value")] == [2, 4, 6]


def test_without_an_output_folder_nothing_is_written(make_problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objective, batches = make_problem()
    train(objective, batches, lr=0.1, steps=2)
    assert list(tmp_path.iterdir()) == []


def test_json_lines_stand_alone(make_problem, tmp_path):
    objective, batches = make_problem()
    train(objective, batches, lr=0.1, steps=2, callbacks=[JsonLines(tmp_path / "deep" / "log.jsonl")])
    assert len((tmp_path / "deep" / "log.jsonl").read_text().splitlines()) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals_only(make_problem, monkeypatch, terminal):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("covector.training.loop.on_terminal", lambda: sys.stderr.isatty())
    objective, batches = make_problem()
    train(objective, batches, lr=0.1, steps=2, evaluate=lambda f: {"accuracy": 0.75}, evaluate_every=1)
    assert ("2/2" in stream.getvalue()) is terminal
    assert ("accuracy 0.75" in stream.getvalue()) is terminal


def test_the_bar_survives_an_error_before_the_start():
    bar = ProgressBar()
    bar.on_end(None)
    assert bar._bar is None


def test_training_off_a_terminal_loads_no_rich_and_no_tensorboard():
    code = (
        "import sys, torch, covector; "
        "f = covector.Objective.from_function(lambda p, b: p['x'].square().sum(), {'x': torch.ones(2)}); "
        "covector.train(f, [None], lr=0.1, steps=2, estimator=covector.ZerothOrder()); "
        "print([m for m in ('rich', 'tensorboard', 'transformers', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_seconds_are_those_of_the_steps(make_problem):
    objective, batches = make_problem()
    history = train(objective, batches, lr=0.1, steps=3, estimator=ZerothOrder())
    assert len(history.seconds) == 3
    assert all(0 < s < 60 for s in history.seconds)
    assert torch.tensor(history.losses).isfinite().all()
