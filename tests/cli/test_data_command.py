import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

import covector
from covector.cli.shell import app
from covector.errors import ArgumentError

runner = CliRunner(env={"COLUMNS": "160"})


@pytest.fixture(autouse=True)
def catalog(monkeypatch):
    """A catalog of two entries in place of the real one, which fetches from the network."""
    entries = [
        SimpleNamespace(name="tiny-model", kind="model", size=92.94, license="Apache-2.0", description="a model"),
        SimpleNamespace(name="snippets", kind="text", size=2.5, license="MIT", description="texts"),
    ]

    def get(name):
        if name not in {entry.name for entry in entries}:
            raise ArgumentError("name", name, "a name of the catalog")
        return Path("/cache") / name

    fake = ModuleType("covector.data")
    fake.list, fake.get = lambda: entries, get
    monkeypatch.setitem(sys.modules, "covector.data", fake)
    monkeypatch.setattr(covector, "data", fake, raising=False)


def test_the_catalog_is_listed_with_sizes_and_licenses():
    lines = runner.invoke(app, ["data", "list"]).stdout.splitlines()
    assert lines[0].split() == ["name", "kind", "size", "license", "description"]
    assert lines[1].split() == ["tiny-model", "model", "92.9", "MB", "Apache-2.0", "a", "model"]


def test_the_catalog_as_json():
    records = json.loads(runner.invoke(app, ["data", "list", "--json"]).stdout)
    assert records[1] == {
        "name": "snippets",
        "kind": "text",
        "size": 2.5,
        "license": "MIT",
        "description": "texts",
    }


def test_getting_prints_the_folder_of_each():
    done = runner.invoke(app, ["data", "get", "snippets", "tiny-model"])
    assert done.stdout.splitlines() == [str(Path("/cache/snippets")), str(Path("/cache/tiny-model"))]


def test_an_unknown_name_is_one_clean_message():
    done = runner.invoke(app, ["data", "get", "nothing"])
    assert done.exit_code == 2
    assert done.stderr.strip().endswith("Error: name='nothing': expected a name of the catalog")
