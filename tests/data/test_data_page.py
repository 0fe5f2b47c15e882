"""The page about the data says what the catalog says."""

from pathlib import Path

import pytest

from covector import data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@pytest.mark.parametrize("entry", data.list(), ids=lambda entry: entry.name)
def test_the_page_gives_package_version_size_and_license_of_every_entry(entry):
    (row,) = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{entry.name}` | {entry.description}")
    ]
    assert f"`{entry.package.name}` {entry.package.version} ({entry.size:g} MB)" in row
    assert row.endswith(f"| {entry.license} |")
    assert (entry.clients or "-") in row


def test_the_page_names_no_entry_that_is_not_there():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if " MB) | " in line]
    assert len(rows) == len(data.list())
