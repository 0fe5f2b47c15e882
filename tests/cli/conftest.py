"""A folder of evidence modules that exists for one test only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from covector.evidence import registry

TEMPLATE = """
from covector.evidence import Budget, Evidence, Finding, figure, paper

@paper({slug!r}, parts=["covector.errors.CovectorError"])
def evidence(budget):
{body}
"""


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write the evidence module of a paper, given the body of its function."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setattr(registry, "folder", folder)

    def write(slug: str, body: str) -> Path:
        path = folder / f"{slug.replace('-', '_')}.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        path.write_text(TEMPLATE.format(slug=slug, body=lines), encoding="utf-8")
        return path

    return write


HOLDS = """
path = budget.path("loss-by-step.svg")
with figure(path, x="step", y="loss") as axes:
    axes.plot([0, 1], [2.0, 1.0])
finding = Finding("It is smaller", "smaller", 1.0, 2.0, "loss", {holds}, "two points")
return Evidence({slug!r}, [finding], [path])
"""


@pytest.fixture
def write_paper(write_module: Callable[[str, str], Path]) -> Callable[[str, bool | None], Path]:
    """Write the evidence module of a paper that draws one figure and has one finding."""

    def write(slug: str, holds: bool | None = True) -> Path:
        return write_module(slug, HOLDS.format(slug=slug, holds=holds))

    return write
