"""The examples run, at tiny settings, and show what they say."""

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mezo_in_the_trainer(tmp_path, capsys):
    before, after = load("mezo_in_trainer").main(["--model", "tiny", "--steps", "25", "--out", str(tmp_path)])
    assert after < before
    assert "5,712 parameters, no .grad" in capsys.readouterr().out


def test_lightning_module(tmp_path):
    accuracy = load("lightning_module").main(["--epochs", "1", "--out", str(tmp_path)])
    assert accuracy["backprop"] > 0.6
    assert accuracy["zeroth order"] > 0.15  # chance is 0.1


def test_plain_loop_and_its_resume(tmp_path, capsys):
    main = load("plain_loop").main
    first = main(["--steps", "40", "--out", str(tmp_path)])
    assert first["backprop, Adam"] > 0.6
    assert min(first.values()) > 0.15
    assert len((tmp_path / "0" / "metrics.jsonl").read_text().splitlines()) == 41
    again = main(["--steps", "40", "--out", str(tmp_path)])
    assert again == first
    assert "after 40 steps" in capsys.readouterr().out
