"""The live view of a fine-tuning: a bar for each method, with loss, score and bytes so far."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from covector.finetune import RoundRecord
from covector.finetune.figures import human_bytes

__all__ = ["LiveView"]


class LiveView:
    """A listener that draws progress on standard error; plain lines where that is no terminal.

    Args:
        methods: rounds of each method, in the order they run.
    """

    def __init__(self, methods: dict[str, int]) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {
            name: self.progress.add_task(name, total=rounds, start=False, status="waiting")
            for name, rounds in methods.items()
        }
        self.score: dict[str, float] = {}
        self.moved: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        self.console.print("loading the model and scoring it as it is ...")
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, record: RoundRecord) -> None:
        task = self.tasks[record.method]
        if record.validation is not None:
            self.score[record.method] = record.validation
        moved = self.moved.setdefault(record.method, [0, 0])
        moved[0] += sum(record.up.values())
        moved[1] += sum(record.down.values())
        status = self._status(record)
        if record.round == 0:
            self.progress.start_task(task)
        self.progress.update(task, completed=record.round, status=status)
        if not self.console.is_terminal:
            self.console.print(f"{record.method} round {record.round}: {status}")
        for line in record.events:
            self.console.print(f"  {record.method} {line}")

    def _status(self, record: RoundRecord) -> str:
        up, down = self.moved[record.method]
        parts = [f"loss {record.loss:.3f}" if record.losses else "", f"validation {self.score[record.method]:.3f}"]
        parts.append(f"up {human_bytes(up)} down {human_bytes(down)}" if up else "")
        return "  ".join(part for part in parts if part)
