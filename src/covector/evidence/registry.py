"""Which papers have evidence, and how to get at it.

A paper's evidence is one file, ``covector/evidence/<slug with underscores>.py``. The file's presence makes
the paper *working*: nothing is imported to know that, and nothing else is edited to add a paper.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from covector.errors import ArgumentError, MismatchError
from covector.evidence.budget import Budget
from covector.evidence.findings import Evidence
from covector.evidence.table import STATIONS, Paper, find, table

__all__ = ["Experiment", "load", "paper", "papers", "status"]

Run: TypeAlias = Callable[[Budget], Evidence]

PACKAGE = Path(__file__).parent

# where evidence modules are looked for; tests put a folder of their own here
folder = PACKAGE


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment, as its module marked it.

    Args:
        paper: the row of the table.
        parts: full names of the parts of the library that the experiment puts to work.
        run: the function that runs it.
    """

    paper: Paper
    parts: tuple[str, ...]
    run: Run


def paper(slug: str, *, parts: Sequence[str] = ()) -> Callable[[Run], Run]:
    """Mark the decorated function as a paper's experiment; it can still be called as it is.

    Args:
        slug: the paper's name in the table.
        parts: full names of what is at work, such as ``["covector.optim.AdEMAMix"]``.

    Returns:
        A decorator for a function ``evidence(budget: Budget) -> Evidence``.

    Raises:
        ArgumentError: the table has no such slug, or ``parts`` is a single string.

    >>> from covector.evidence import Evidence, Finding
    >>> @paper("ademamix", parts=["covector.optim.AdEMAMix"])
    ... def evidence(budget):
    ...     steps = budget.choose(smoke=10, full=10_000)
    ...     return Evidence("ademamix", [Finding("It runs", "yes", steps, 0, "steps", None, "an example")])
    >>> evidence(Budget("smoke")).findings[0].measured
    10
    """
    row = find(slug)
    if isinstance(parts, str):
        raise ArgumentError("parts", parts, "a list of full names, such as ['covector.optim.AdEMAMix']")

    def mark(run: Run) -> Run:
        # on the function, not in a global table: what a module defines is then what it is asked for
        run.__dict__["experiment"] = Experiment(row, tuple(parts), run)
        return run

    return mark


def status(slug: str) -> str:
    """Return ``"working"`` where a paper has an evidence module, else ``"open"``. Nothing is imported.

    Args:
        slug: the paper's name in the table.

    Raises:
        ArgumentError: the table has no such slug.
    """
    return "working" if _path(find(slug)).is_file() else "open"


def papers(station: str | None = None, status: str | None = None) -> list[Paper]:
    """List the papers. No evidence module is imported.

    Args:
        station: only those of one station (default: all).
        status: only the ``"open"`` or only the ``"working"`` ones (default: both).

    Returns:
        Rows of the table, in its order.

    Raises:
        ArgumentError: no such station or status.

    >>> [row.slug for row in papers(station="series")]
    ['nutime']
    """
    if station is not None and station not in STATIONS:
        raise ArgumentError("station", station, "one of " + ", ".join(STATIONS))
    if status not in (None, "open", "working"):
        raise ArgumentError("status", status, "'open' or 'working'")
    rows = [row for row in table() if station in (None, row.station)]
    return [row for row in rows if status is None or _path(row).is_file() == (status == "working")]


def load(slug: str) -> Experiment:
    """Import a paper's evidence module and return its experiment.

    Args:
        slug: the paper's name in the table.

    Returns:
        The experiment.

    Raises:
        ArgumentError: the table has no such slug, or the paper is open.
        MismatchError: the module holds no experiment of this paper.
    """
    row = find(slug)
    path = _path(row)
    if not path.is_file():
        working = ", ".join(paper.slug for paper in papers(status="working")) or "none yet"
        raise ArgumentError("slug", slug, f"a paper that has evidence; this one is open (working: {working})")
    for value in vars(_import(row.module, path)).values():
        experiment = getattr(value, "experiment", None)
        if isinstance(experiment, Experiment) and experiment.paper == row:
            return experiment
    raise MismatchError(f"{path.name} has no experiment of {slug!r}: put @paper({slug!r}, ...) on its function")


def _path(row: Paper) -> Path:
    return folder / f"{row.module}.py"


def _import(name: str, path: Path) -> ModuleType:
    if path.parent == PACKAGE:
        return importlib.import_module(f"covector.evidence.{name}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
