"""The trials that are done, one JSON object a line: what a killed run is resumed from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from covector.compare.trial import Result, Trial
from covector.errors import ArgumentError, CorruptionError

__all__ = ["Journal"]


class Journal:
    """Finished trials in ``trials.jsonl``.

    Args:
        folder: where the file is, made where it is missing.
        resume: read what is there and add to it.

    Raises:
        ArgumentError: trials are there and ``resume`` is not asked for.
        CorruptionError: a line, other than one cut off at the end, is not a trial.

    >>> import tempfile
    >>> folder, trial = Path(tempfile.mkdtemp()), Trial("regression", "adamw", 0.1, 0, 10, "cosine")
    >>> Journal(folder).add(trial, Result(0.5))
    >>> Journal(folder, resume=True).find(trial).value
    0.5
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "trials.jsonl"
        self.done: dict[str, Result] = {}
        if not self.path.exists():
            return
        if not resume:
            raise ArgumentError("out", str(folder), "a folder without trials, or --resume to go on with them")
        self._read()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole, _, cut = text.rpartition("\n")
        if cut:  # the line that was being written when the run was killed
            self.path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row: dict[str, Any] = json.loads(line)
                trial, result = Trial(**row["trial"]), Result(**row["result"])
            except (ValueError, TypeError, KeyError) as error:
                raise CorruptionError(f"{self.path}, line {number}: not a trial ({error})") from error
            self.done[trial.key] = result

    def find(self, trial: Trial) -> Result | None:
        """The result of a trial that is done."""
        return self.done.get(trial.key)

    def add(self, trial: Trial, result: Result) -> None:
        """Write a result down, at once."""
        row = {"trial": dataclasses.asdict(trial), "result": dataclasses.asdict(result)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.done[trial.key] = result
