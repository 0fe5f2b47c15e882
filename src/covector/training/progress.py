"""A progress bar on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from covector.training.callbacks import Callback
from covector.training.run import Run

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar", "on_terminal"]


def on_terminal() -> bool:
    """Whether the standard error stream is a terminal.

    >>> on_terminal() in (True, False)
    True
    """
    return sys.stderr is not None and sys.stderr.isatty()


class ProgressBar(Callback):
    """Steps, loss, the last evaluation and the time left, on the standard error stream."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._evaluation = ""

    def on_start(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=run.steps, completed=run.step)
        self._bar.start()

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        self._show(run, f"loss {record['loss']:.4g}{self._evaluation}")

    def on_evaluate(self, run: Run, record: dict[str, float]) -> None:
        self._evaluation = "".join(f"  {name} {value:.4g}" for name, value in record.items() if name != "step")

    def on_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, run: Run, text: str) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, completed=run.step, description=text)
