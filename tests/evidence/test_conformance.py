"""Being there is enough to be tested: every evidence module runs at the smoke budget and keeps the rules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from covector.evidence import Budget, Evidence, papers, run

# "seconds": the rule for authors is ten; a busy machine gets room
SMOKE_LIMIT = 120.0


def check(slug: str, out: Path) -> Evidence:
    """Run an experiment at the smoke budget and assert what every one of them owes its reader."""
    found = run(slug, Budget("smoke", seed=0, out=out))
    assert isinstance(found, Evidence), f"{found.error}\n{found.trace}"
    assert found.seconds < SMOKE_LIMIT
    assert found.parts, "name the parts of the library that are at work"
    for part in found.parts:
        assert resolves(part), f"{part} is not there"
    claims = [finding.claim for finding in found.findings]
    assert len(set(claims)) == len(claims), "two findings make the same claim"
    assert found.figures, "draw at least one figure"
    for figure in found.figures:
        assert figure.parent == out, f"{figure} lies outside the folder of the run"
        assert figure.stat().st_size > 0
    assert Evidence.read(found.write(out)).findings == found.findings
    return found


def resolves(name: str) -> bool:
    """Whether a full name leads to something: a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    if not name.startswith("covector."):
        return False
    try:
        importlib.import_module(name)
        return True
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("slug", [paper.slug for paper in papers(status="working")])
def test_experiment_runs_and_keeps_the_rules(slug, tmp_path):
    check(slug, tmp_path)


def test_the_check_accepts_a_sound_experiment(write_paper, tmp_path):
    write_paper("gam")
    assert check("gam", tmp_path / "out").verdict == "holds"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise ValueError('no data')", "no data"),
        ("return Evidence('gam', [Finding('a', 'b', 1, 2, 'c', True, 'd')])", "at least one figure"),
        ("return Evidence('gam', [Finding('a', 'b', 1, 2, 'c', True, 'd')] * 2)", "the same claim"),
    ],
)
def test_the_check_finds_what_is_wrong(write_module, tmp_path, body, complaint):
    write_module("gam", body)
    with pytest.raises(AssertionError, match=complaint):
        check("gam", tmp_path / "out")


def test_names_are_resolved_as_modules_and_as_attributes():
    assert resolves("covector.errors")
    assert resolves("covector.errors.CovectorError")
    assert not resolves("covector.errors.NoSuchError")
    assert not resolves("torch.optim.Adam")
