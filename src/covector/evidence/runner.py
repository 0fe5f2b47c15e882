"""Run experiments: the same seed everywhere, the environment recorded, and a failure is a result too."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from covector.errors import CorruptionError, MismatchError
from covector.evidence.budget import Budget
from covector.evidence.environment import describe_environment
from covector.evidence.findings import FORMAT, Evidence
from covector.evidence.registry import Experiment, load, status

__all__ = ["DidNotRun", "Result", "collect", "run"]


@dataclass(frozen=True)
class DidNotRun:
    """An experiment that raised instead of returning evidence.

    Args:
        slug: the paper's name in the table.
        error: type and message of the error, in one line.
        trace: the traceback.
        seconds: wall time until it failed.
        budget: name of the budget.
        seed: the seed of the run.
    """

    slug: str
    error: str
    trace: str
    seconds: float = 0.0
    budget: str = "smoke"
    seed: int = 0

    verdict = "did not run"

    def to_json(self, indent: int | None = None) -> str:
        """Return the failure as a JSON text, of the same format as evidence but with an ``error``."""
        record = {"format": FORMAT, "verdict": self.verdict, **asdict(self)}
        return json.dumps(record, indent=indent, ensure_ascii=False, allow_nan=False)

    def write(self, folder: Path) -> Path:
        """Write ``evidence.json`` into a folder, so that an older result does not pass for this one's."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "evidence.json"
        path.write_text(self.to_json(indent=2) + "\n", encoding="utf-8")
        return path


Result: TypeAlias = Evidence | DidNotRun


def run(slug: str, budget: Budget) -> Result:
    """Run a paper's experiment.

    Python's, NumPy's and torch's global generators are seeded for the run and put back afterwards.

    Args:
        slug: the paper's name in the table.
        budget: how much work, which seed, and the folder for figures.

    Returns:
        The evidence with environment, seconds and parts filled in, or :class:`DidNotRun` with the error.

    Raises:
        ArgumentError: the table has no such slug, or the paper is open.
    """
    if status(slug) == "open":
        load(slug)
    # before the clock starts: this imports torch, which is no part of the experiment
    environment = describe_environment()
    start = time.perf_counter()
    try:
        experiment = load(slug)
        start = time.perf_counter()
        with _seeded(budget.seed):
            found = _checked(experiment, experiment.run(budget))
    except Exception as error:
        seconds = time.perf_counter() - start
        summary = f"{type(error).__name__}: {error}".strip()
        return DidNotRun(slug, summary, traceback.format_exc(), seconds, budget.name, budget.seed)
    return replace(
        found,
        environment=environment,
        seconds=time.perf_counter() - start,
        budget=budget.name,
        parts=experiment.parts,
        seed=budget.seed,
    )


def collect(folder: Path) -> list[Result]:
    """Read all results below a folder.

    Args:
        folder: as given to ``covector reproduce --out``; each paper has a folder of its own in it.

    Returns:
        One result a paper, by slug; none where the folder does not exist.

    Raises:
        CorruptionError: a file is not an evidence record of a known format.
    """
    return [_read(path) for path in sorted(folder.glob("*/evidence.json"))]


def _read(path: Path) -> Result:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CorruptionError(f"{path}: not JSON ({error})") from error
    if not isinstance(record, dict) or record.get("verdict") != DidNotRun.verdict:
        return Evidence.read(path)
    names = ("slug", "error", "trace", "seconds", "budget", "seed")
    if record.get("format") != FORMAT or not set(names) <= set(record):
        raise CorruptionError(f"{path}: not an evidence record of format {FORMAT!r}")
    return DidNotRun(**{name: record[name] for name in names})


def _checked(experiment: Experiment, found: object) -> Evidence:
    slug = experiment.paper.slug
    if not isinstance(found, Evidence):
        raise MismatchError(f"the experiment of {slug!r} returned {type(found).__name__}, expected Evidence")
    if found.slug != slug:
        raise MismatchError(f"the experiment of {slug!r} returned the evidence of {found.slug!r}")
    missing = [str(figure) for figure in found.figures if not Path(figure).is_file()]
    if missing:
        raise MismatchError(f"the experiment of {slug!r} names figures it did not write: {', '.join(missing)}")
    return found


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import random

    import numpy
    import torch

    python, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(array)
