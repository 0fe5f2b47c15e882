"""``covector inspect``: curvature and noise of a model, in seconds, as a table and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from covector.cli.console import out as console
from covector.compare import TASKS
from covector.errors import ArgumentError
from covector.inspection import (
    Subject,
    read,
    subject_from_model,
    subject_from_task,
    train_subject,
    write_report,
)
from covector.landscape import PARTS, Inspection
from covector.landscape import inspect as look

__all__ = ["inspect"]

_ALL = ",".join(PARTS)


def inspect(
    task: Annotated[
        str | None, typer.Option(help="One of " + ", ".join(TASKS) + "; or module:function of yours.", metavar="TASK")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A language model: a name of 'data list', or a folder.", metavar="MODEL")
    ] = None,
    data: Annotated[str, typer.Option(help="Texts for MODEL: a name of 'data list', or a JSONL file.")] = "sentiment",
    lr: Annotated[float | None, typer.Option(help="Learning rate to judge.")] = None,
    momentum: Annotated[float, typer.Option(help="Momentum to judge it with.")] = 0.0,
    train: Annotated[int, typer.Option(help="Steps of gradient descent at LR before looking; TASK only.")] = 0,
    parts: Annotated[str, typer.Option(help=f"What to measure: some of {_ALL}.", metavar="PARTS")] = _ALL,
    batches: Annotated[int, typer.Option(help="Training batches to look at.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Texts of a batch; MODEL only.")] = 8,
    max_length: Annotated[int, typer.Option(help="Tokens of a text at most; MODEL only.")] = 128,
    train_examples: Annotated[int | None, typer.Option(help="Size of the training set, for the gap.")] = None,
    top: Annotated[int, typer.Option(help="How many of the largest eigenvalues.")] = 3,
    probes: Annotated[int, typer.Option(help="Random vectors of the traces.")] = 8,
    steps: Annotated[int, typer.Option(help="Lanczos steps of a vector of the density.")] = 40,
    tol: Annotated[float, typer.Option(help="Relative residual of the eigenvalues.")] = 1e-2,
    seed: Annotated[int, typer.Option(help="Of weights, order and random vectors.")] = 0,
    dtype: Annotated[str, typer.Option(help="Of the parameters; MODEL only.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")] = Path("runs/inspect"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """See the loss surface of a model: sharpness, spectrum, noise, and what they say of step and batch size.

    A task of yours is a function that returns (model, loss, (train, validation)), as for
    [cyan]covector compare[/cyan]; the model is looked at as it comes, in evaluation mode. OUT receives
    [cyan]report.html[/cyan] and results.json.

    On a large model, parts cost memory: the ends take eight vectors as long as the model, traces and noise
    two.

    [bold]Examples[/bold]
      covector inspect --task cnn --train 200 --lr 0.05
      covector inspect --task mywork:trained --lr 0.1 --momentum 0.9 --train-examples 50000
      covector inspect --model smollm2-135m-instruct --parts ends,traces,noise --batches 2 --batch-size 4
    """
    subject = _subject(task, model, data, batches, batch_size, max_length, seed, dtype, device)
    if train and lr is None:
        raise ArgumentError("lr", None, "a learning rate: --train takes its steps with it")
    settings = {
        "subject": subject.name, "lr": lr, "momentum": momentum, "train": train, "parts": parts, "batches": batches,
        "top": top, "probes": probes, "steps": steps, "tol": tol, "seed": seed,
    }  # fmt: skip
    records: list[dict[str, float]] = []
    with Console(stderr=True).status("") as status:
        if train:
            status.update(f"training {train} steps")
            records = train_subject(subject, train, lr or 0.0, momentum, seed=seed)
        found = look(
            subject.objective, subject.batches, lr=lr, momentum=momentum, train_examples=train_examples,
            parts=[part.strip() for part in parts.split(",") if part.strip()], top=top, probes=probes, steps=steps,
            tol=tol, seed=seed, listener=lambda part: status.update(f"measuring {PARTS.get(part, part)}"),
        )  # fmt: skip
    _write(found, out, subject.name, settings, records)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    console().print(table(found, subject.name))
    console().print(f"report: {out / 'report.html'}", soft_wrap=True)


def table(found: Inspection, name: str) -> Table:
    """The numbers and what they mean, as a table."""
    title = f"{name}: {found.parameters:,} parameters, {found.products} products with the Hessian"
    rows = Table(title=title, box=None, pad_edge=False, padding=(0, 1), title_justify="left")
    rows.add_column("", no_wrap=True)
    rows.add_column("", justify="right", no_wrap=True)
    rows.add_column("", overflow="fold", style="dim")
    for row in read(found):
        rows.add_row(row.name, row.value, row.meaning)
    return rows


def _subject(
    task: str | None, model: str | None, data: str, batches: int, batch_size: int, max_length: int, seed: int,
    dtype: str, device: str,
) -> Subject:  # fmt: skip
    if (task is None) == (model is None):
        raise ArgumentError("task", task, "either --task or --model")
    if task is not None:
        return subject_from_task(task, batches, seed, device)
    assert model is not None
    return subject_from_model(
        model,
        data,
        batches=batches,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        dtype=dtype,
        device=device,
    )


def _write(found: Inspection, out: Path, name: str, settings: dict[str, Any], records: list[dict[str, float]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    results = {"settings": settings, "found": found.to_dict(), "training": records}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_report(found, out / "report.html", name=name, settings=settings, records=records)
