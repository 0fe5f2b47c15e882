"""``covector papers``: the table of the papers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from covector.cli.console import out, status_text
from covector.evidence.registry import papers as select
from covector.evidence.registry import status as status_of
from covector.evidence.table import STATIONS, Paper

__all__ = ["papers"]


def papers(
    station: Annotated[
        str | None,
        typer.Option(help="Only one station.", autocompletion=lambda: list(STATIONS), metavar="NAME"),
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="Only papers that are 'open' or 'working'.", metavar="open|working")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array with every field.")] = False,
) -> None:
    """List the 120 papers: station in the library, year, and whether the experiment is there.

    A paper is [bold]working[/bold] when [cyan]covector reproduce SLUG[/cyan] can run it,
    else [bold]open[/bold].

    [bold]Examples[/bold]
      covector papers
      covector papers --station estimators
      covector papers --status working --json
    """
    rows = select(station=station, status=status)
    if as_json:
        records = [{**asdict(row), "url": row.url, "status": status_of(row.slug)} for row in rows]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    console = out()
    console.print(_table(rows))
    working = sum(status_of(row.slug) == "working" for row in rows)
    console.print(f"{len(rows)} papers: {working} working, {len(rows) - working} open", style="dim")


def _table(rows: list[Paper]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for name, ratio in (("station", None), ("slug", None), ("title", 1), ("year", None), ("status", None)):
        table.add_column(name, ratio=ratio, no_wrap=name != "title", overflow="ellipsis" if ratio is None else "fold")
    order = {name: place for place, name in enumerate(STATIONS)}
    last = ""
    for row in sorted(rows, key=lambda row: (order[row.station], row.number)):
        table.add_row(
            Text(row.station if row.station != last else "", style="bold cyan"),
            Text(row.slug),
            Text(row.title, style="dim"),
            str(row.year),
            status_text(status_of(row.slug)),
        )
        last = row.station
    return table
