"""What an experiment found: one :class:`Finding` a claim, gathered in an :class:`Evidence`.

Both are plain values that travel as JSON, so a result can be stored, compared and shown long after the run.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from covector.errors import ArgumentError, CorruptionError

__all__ = ["VERDICTS", "Evidence", "Finding", "Value", "show"]

Value = float | int | str

VERDICTS = ("holds", "partly", "does not hold", "undecided")

FORMAT = "covector-evidence/1"


@dataclass(frozen=True)
class Finding:
    """One claim of a paper beside what was measured here.

    Args:
        claim: what the paper says, in one sentence.
        reported: the paper's own number, or its words where it gives none ("lower").
        measured: the number measured here, or a word such as "diverged".
        baseline: the number of what it is compared with, measured in the same run, or "none".
        unit: unit of the three ("bytes", "test accuracy", "ratio").
        holds: whether the claim holds here; None where this budget cannot decide it (the note says why).
        note: how it was measured: model, data, seeds, and what differs from the paper.

    Raises:
        ArgumentError: a text is empty, or a number is NaN or infinite.

    >>> Finding("Uploads fit 18 kB", 17_988, 17_988, 538_060_032, "bytes", True, "measured on the wire").holds
    True
    """

    claim: str
    reported: Value
    measured: Value
    baseline: Value
    unit: str
    holds: bool | None
    note: str

    def __post_init__(self) -> None:
        for name in ("claim", "unit", "note"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise ArgumentError(name, text, "a text that is not empty")
        for name in ("reported", "measured", "baseline"):
            object.__setattr__(self, name, _plain(name, getattr(self, name)))
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))

    @property
    def verdict(self) -> str:
        """``"holds"``, ``"does not hold"`` or ``"undecided"``."""
        if self.holds is None:
            return "undecided"
        return "holds" if self.holds else "does not hold"


@dataclass(frozen=True)
class Evidence:
    """The outcome of one paper's experiment.

    An experiment returns ``Evidence(slug, findings, figures)``; the runner fills in the rest.

    Args:
        slug: the paper's name in the table.
        findings: one a claim, at least one.
        figures: paths of the figures that were written.
        environment: what it ran on (versions, processor, threads, date).
        seconds: wall time of the experiment.
        budget: name of the budget, ``"smoke"`` or ``"full"``.
        parts: names of the parts of the library that were at work.
        seed: the seed of the run.

    Raises:
        ArgumentError: there are no findings.

    >>> finding = Finding("It is smaller", "smaller", 216, 17_988, "bytes", True, "one client, one round")
    >>> evidence = Evidence("one-byte-per-gradient", [finding])
    >>> evidence.verdict, Evidence.from_json(evidence.to_json()) == evidence
    ('holds', True)
    """

    slug: str
    findings: Sequence[Finding]
    figures: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    budget: str = "smoke"
    parts: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(self.findings))
        object.__setattr__(self, "figures", tuple(Path(figure) for figure in self.figures))
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.findings:
            raise ArgumentError("findings", self.findings, "at least one finding")

    @property
    def verdict(self) -> str:
        """The findings in one word: all hold, some hold, none holds, or none could be decided.

        Returns:
            One of ``VERDICTS``. An undecided finding beside one that holds gives ``"partly"``.
        """
        seen = {finding.holds for finding in self.findings}
        if seen == {True}:
            return "holds"
        if True in seen:
            return "partly"
        return "does not hold" if False in seen else "undecided"

    @property
    def summary(self) -> str:
        """The findings as an aligned plain-text table."""
        header = ("claim", "reported", "measured", "baseline", "unit", "verdict")
        rows = [header] + [
            (f.claim, show(f.reported), show(f.measured), show(f.baseline), f.unit, f.verdict) for f in self.findings
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def to_json(self, indent: int | None = None) -> str:
        """Return the evidence as a JSON text.

        Args:
            indent: spaces a level; None (default) gives a single line.

        Returns:
            JSON without NaN or infinities; figures as paths with forward slashes.
        """
        record = {
            "format": FORMAT,
            "slug": self.slug,
            "verdict": self.verdict,
            "budget": self.budget,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "parts": list(self.parts),
            "findings": [asdict(finding) for finding in self.findings],
            "figures": [figure.as_posix() for figure in self.figures],
            "environment": dict(self.environment),
        }
        return json.dumps(record, indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evidence:
        """Read what :meth:`to_json` wrote.

        Args:
            text: a JSON text.

        Returns:
            The evidence; seconds are rounded to milliseconds.

        Raises:
            CorruptionError: the text is not an evidence record of a known format.
        """
        try:
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise CorruptionError(f"evidence record of format {record['format']!r}: expected {FORMAT!r}")
            names = ("slug", "figures", "environment", "seconds", "budget", "parts", "seed")
            findings = [Finding(**finding) for finding in record["findings"]]
            return cls(findings=findings, **{name: record[name] for name in names})
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ArgumentError) as error:
            raise CorruptionError(f"not an evidence record: {error!r}") from error

    def write(self, folder: Path) -> Path:
        """Write ``evidence.json`` into a folder, with the figures that lie under it as relative paths.

        Args:
            folder: created where missing.

        Returns:
            The path of the file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        inside = [f.relative_to(folder) if f.is_relative_to(folder) else f.absolute() for f in self.figures]
        path = folder / "evidence.json"
        path.write_text(replace(self, figures=inside).to_json(indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Read what :meth:`write` wrote; relative figures are taken from the file's folder.

        Args:
            path: an ``evidence.json``.

        Returns:
            The evidence, its figures as paths that can be opened from here.

        Raises:
            CorruptionError: the file is not an evidence record of a known format.
        """
        evidence = cls.from_json(path.read_text(encoding="utf-8"))
        return replace(evidence, figures=[path.parent / figure for figure in evidence.figures])


def show(value: Value) -> str:
    """Format a measured value for people: four significant digits, thousands apart.

    Args:
        value: a number or a text.

    Returns:
        The text that tables and pages print.

    >>> show(17988), show(0.79512), show(1.0), show(3e-7), show("lower")
    ('17,988', '0.7951', '1', '3e-07', 'lower')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (abs(value) >= 1000 and abs(value) < 1e15):
        return f"{round(value):,}"
    return f"{value:.4g}"


def _plain(name: str, value: Any) -> Value:
    """Turn NumPy and torch scalars into Python's, and refuse what JSON cannot carry."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    raise ArgumentError(name, value, "a finite number, or a word such as 'diverged' or 'none'")
