"""``covector compare``: rank optimizers on a task, each tuned with the same budget."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from covector.cli.console import out as console
from covector.compare import SCHEDULES, TASKS, TUNERS, Comparison, Event, Row, Settings
from covector.compare import compare as run_comparison
from covector.compare.optimizers import split_names
from covector.compare.settings import cores
from covector.errors import ArgumentError

__all__ = ["compare"]


def compare(
    task: Annotated[
        str, typer.Option(help="One of " + ", ".join(TASKS) + "; or module:function of yours.", metavar="TASK")
    ] = "charlm",
    optimizers: Annotated[
        str,
        typer.Option(
            help="Comma-separated: ours by name or 'all', torch.NAME, pytorch_optimizer.NAME.", metavar="NAMES"
        ),
    ] = "adamw,torch.SGD(momentum=0.9)",
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 300,
    seeds: Annotated[int, typer.Option(help="Runs of each optimizer at its best learning rate.")] = 3,
    budget: Annotated[int, typer.Option(help="Learning rates tried for each optimizer.")] = 7,
    schedule: Annotated[str, typer.Option(help="One of " + ", ".join(SCHEDULES) + ".")] = "cosine",
    tuner: Annotated[str, typer.Option(help="One of " + ", ".join(TUNERS) + ".")] = "grid",
    jobs: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")] = Path("runs/compare"),
    resume: Annotated[bool, typer.Option(help="Take over the finished trials in OUT.")] = False,
) -> None:
    """Rank optimizers on a task: each tuned with the same budget, then several seeds, with intervals.

    The learning rate is searched on powers of two around the optimizer's default; the search goes on
    beyond its edge while the best is there, and looks between where the best is inside. Then the
    best rate runs with further seeds; all optimizers see the same initial weights and batches.

    Ctrl-C ends after what is done and still prints the ranking; [cyan]--resume[/cyan] goes on, also with
    more optimizers or seeds, and runs nothing twice. OUT receives [cyan]report.html[/cyan], trials.jsonl
    and results.json.

    A task of yours is a function, [cyan]def task(seed)[/cyan], that returns (model, loss, (train, validation)):
    a module, loss(outputs, targets), and two iterables of (inputs, targets).

    [bold]Examples[/bold]
      covector compare --task regression --optimizers all --steps 100
      covector compare --optimizers "adamw,adamw(weight_decay=0.1),torch.AdamW" --seeds 5
      covector compare --task cnn:fashion-mnist --optimizers all,torch.Muon --schedule wsd
      covector compare --task mywork:task --optimizers all --budget 9 --out runs/mine --resume
    """
    if jobs is not None and jobs < 1:
        raise ArgumentError("jobs", jobs, "a whole number of at least 1")
    settings = Settings(task, split_names(optimizers), steps, seeds, budget, schedule, tuner)
    with Bars(settings) as bars:
        comparison = run_comparison(settings, out, jobs or cores(), resume, [bars])
    console().print(ranking(comparison))
    for line in notes(comparison):
        console().print(line, markup=False, soft_wrap=True)
    console().print(f"report: {out / 'report.html'}", soft_wrap=True)
    if comparison.interrupted:
        console().print("interrupted; go on with --resume", soft_wrap=True)
        raise typer.Exit(130)


class Bars:
    """A listener that draws a bar for each optimizer on standard error; plain lines where that is no terminal."""

    def __init__(self, settings: Settings) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.width = max(map(len, settings.optimizers))
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        total = settings.budget + settings.seeds
        self.tasks: dict[str, TaskID] = {
            name: self.progress.add_task(name.ljust(self.width), total=total, status="") for name in settings.optimizers
        }
        self.best: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        trial, result = event.trial, event.result
        what = "tuning" if trial.seed == 0 else f"seed {trial.seed}"
        loss = "failed" if result.error else "diverged" if result.diverged else f"{result.loss:.4f}"
        self.best[trial.optimizer] = min(self.best.get(trial.optimizer, math.inf), result.loss)
        status = f"{what}, lr {trial.lr:.3g}: {loss}, best {self.best[trial.optimizer]:.4f}"
        self.progress.update(self.tasks[trial.optimizer], advance=1, status=status)
        if not self.console.is_terminal:
            source = " (from before)" if event.known else ""
            self.console.print(f"{trial.optimizer} {status}{source}", markup=False, soft_wrap=True)


def ranking(comparison: Comparison) -> Table:
    """The ranking as a table."""
    settings = comparison.settings
    title = (
        f"{settings.task}: validation loss after {settings.steps} steps, {settings.seeds} seeds, "
        f"{settings.budget} rates tried for each"
    )
    # narrow enough for 80 columns: what is longer stands below, and the step's whole time in the report
    table = Table(title=title, caption="~ is a tie with the first at 95 %", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("optimizer", overflow="fold", min_width=14)
    for column in ("loss +- 95 %", "behind", "lr", "opt ms", "state B"):
        table.add_column(column, justify="right", no_wrap=True)
    for place, row in enumerate(comparison.rows, 1):
        table.add_row(str(place), *_cells(row))
    return table


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know of single rows."""
    return [f"{row.optimizer}: {row.note}" for row in comparison.rows if row.note]


def _cells(row: Row) -> list[str]:
    lr = "" if row.lr is None else f"{row.lr:.3g}"
    if math.isinf(row.loss):
        return [row.optimizer, "-", "", lr, "", ""]
    spread = f" +- {(row.high - row.low) / 2:.4f}" if math.isfinite(row.low) else ""
    behind = ""
    if row.behind is not None:
        mean, low, high = row.behind
        behind = f"{mean:+.4f}" + (" ~" if low <= 0 <= high and math.isfinite(low) else "")
    time = f"{1000 * row.optimizer_seconds:.2f}"
    return [row.optimizer, f"{row.loss:.4f}{spread}", behind, lr, time, f"{row.state_bytes:.1f}"]
