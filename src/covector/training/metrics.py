"""Metrics on disk: JSON Lines and TensorBoard, as callbacks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from covector.errors import require_extra
from covector.training.callbacks import Callback
from covector.training.run import Run

__all__ = ["JsonLines", "TensorBoard"]


class JsonLines(Callback):
    """One JSON object a line: ``{"kind": "step", "step": 1, "loss": ...}`` or ``{"kind": "evaluation", ...}``.

    A resumed run first drops the lines after its checkpoint, so that every step stands in the file once. Numbers that
    are not finite are written as ``null``.

    Args:
        path: the file, ``metrics.jsonl`` in the output folder of :func:`covector.train`.

    >>> import tempfile
    >>> JsonLines(Path(tempfile.mkdtemp()) / "metrics.jsonl").path.name
    'metrics.jsonl'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def on_start(self, run: Run) -> None:
        kept = _lines_until(self.path, run.step) if run.step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text("".join(kept), encoding="utf-8")
        scratch.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        self._write("step", record)

    def on_evaluate(self, run: Run, record: dict[str, float]) -> None:
        self._write("evaluation", record)

    def on_end(self, run: Run) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, kind: str, record: dict[str, float]) -> None:
        assert self._file is not None
        values = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()


class TensorBoard(Callback):
    """Scalars ``train/...`` and ``evaluation/...`` as TensorBoard events.

    Args:
        folder: where the event files go, ``tensorboard`` in the output folder of :func:`covector.train`.

    Raises:
        MissingExtraError: ``tensorboard`` is not installed.

    >>> TensorBoard("runs/one").folder.name
    'one'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        require_extra("tensorboard", "tensorboard")
        self.folder = Path(folder)
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=run.step + 1 if run.step else None)

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        self._write("train", record)

    def on_evaluate(self, run: Run, record: dict[str, float]) -> None:
        self._write("evaluation", record)

    def on_end(self, run: Run) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, kind: str, record: dict[str, float]) -> None:
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(f"{kind}/{name}", value, int(record["step"]))


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            break  # the torn last line of a run that was killed
        if record["step"] <= step:
            kept.append(line)
    return kept
