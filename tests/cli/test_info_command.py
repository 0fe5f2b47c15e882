import json
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from covector.cli import info
from covector.cli.shell import app

runner = CliRunner(env={"COLUMNS": "160"})

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_versions_device_and_kernels_are_shown():
    record = json.loads(runner.invoke(app, ["info", "--json"]).stdout)
    assert record["torch"] == torch.__version__
    assert set(record["kernels"]) == {"cpu"} | ({"cuda"} if torch.cuda.is_available() else set())
    assert record["kernels"]["cpu"] in ("cpu", "reference")
    assert torch.__version__ in runner.invoke(app, ["info"]).stdout


def test_the_extras_are_those_of_the_project():
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name, modules in info.EXTRAS.items():
        packages = {requirement.split(">")[0].replace("-", "_") for requirement in declared[name]}
        assert packages == set(modules)
    assert set(declared) - set(info.EXTRAS) == {"dev", "docs"}


@pytest.mark.parametrize("modules", [("json",), ("json", "no_such_module")])
def test_an_extra_with_a_missing_package_says_how_to_install_it(monkeypatch, modules):
    monkeypatch.setitem(info.EXTRAS, "language", modules)
    expected = "installed" if modules == ("json",) else "missing no_such_module (pip install 'covector[language]')"
    assert info.describe()["extras"]["language"] == expected
