"""The evidence site: an index of all papers by station, and a page for each with claim beside measurement.

Plain HTML and one style sheet; every link is relative, so the folder can be opened from disk or served.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from covector.evidence.findings import VERDICTS, Evidence, show
from covector.evidence.registry import papers
from covector.evidence.runner import DidNotRun, Result
from covector.evidence.table import STATIONS, Paper, find

__all__ = ["build_site"]

TEMPLATES = Path(__file__).with_name("templates")

# "not run" is a paper that has evidence of which this site was given no result
STATES = (*VERDICTS, DidNotRun.verdict, "not run", "open")


@dataclass(frozen=True)
class _Row:
    paper: Paper
    state: str
    result: Result | None


def build_site(results: Iterable[Result], directory: str | Path) -> Path:
    """Write the evidence site.

    Args:
        results: evidence and failures, at most one a paper; a later one replaces an earlier one.
        directory: folder of the site, created where missing. Pages of an older site are replaced.

    Returns:
        The path of its ``index.html``.

    Raises:
        ArgumentError: a result belongs to no paper of the table.

    >>> import tempfile
    >>> index = build_site([], tempfile.mkdtemp())
    >>> index.name, len(list(index.parent.glob("papers/*.html")))
    ('index.html', 120)
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    root = Path(directory)
    rows = _rows({find(result.slug).slug: result for result in results})
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"show": show, "css": lambda state: state.replace(" ", "-")}
    (root / "papers").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATES / "style.css", root / "style.css")
    for row in rows:
        html = pages.get_template("paper.html").render(
            row=row,
            found=row.result if isinstance(row.result, Evidence) else None,
            failed=row.result if isinstance(row.result, DidNotRun) else None,
            figures=_copy_figures(row.result, root),
            root="../",
        )
        (root / "papers" / f"{row.paper.slug}.html").write_text(html, encoding="utf-8")
    index = root / "index.html"
    html = pages.get_template("index.html").render(
        counts=Counter(row.state for row in rows),
        states=STATES,
        stations=_by_station(rows),
        total=len(rows),
        root="",
    )
    index.write_text(html, encoding="utf-8")
    return index


def _rows(results: dict[str, Result]) -> list[_Row]:
    working = {paper.slug for paper in papers(status="working")}

    def state(slug: str) -> str:
        if slug in results:
            return results[slug].verdict
        return "not run" if slug in working else "open"

    return [_Row(paper, state(paper.slug), results.get(paper.slug)) for paper in papers()]


def _by_station(rows: list[_Row]) -> list[tuple[str, str, list[_Row]]]:
    # what was measured comes first, open papers last; within each, the table's order
    ranked = sorted(rows, key=lambda row: row.state == "open")
    grouped = [(name, text, [row for row in ranked if row.paper.station == name]) for name, text in STATIONS.items()]
    return [group for group in grouped if group[2]]


def _copy_figures(result: Result | None, root: Path) -> list[tuple[str, str]]:
    """Copy the figures into the site; return their addresses, seen from a paper's page, and captions."""
    figures = result.figures if isinstance(result, Evidence) else ()
    folder = root / "figures" / (result.slug if result else "")
    for figure in figures:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure, folder / figure.name)
    return [(f"../figures/{folder.name}/{figure.name}", _caption(figure)) for figure in figures]


def _caption(figure: Path) -> str:
    words = figure.stem.replace("-", " ").replace("_", " ").strip()
    return words[:1].upper() + words[1:]
