"""The shell around the commands: loads each when it is called, and turns errors into one clean message."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import covector
from covector.cli.commands import COMMANDS, Command
from covector.errors import CovectorError

__all__ = ["app"]

ERROR_CODE = 2


class LazyGroup(TyperGroup):
    """A group whose commands are names with a line of help until one of them is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, command in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=command.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name, COMMANDS[name]) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CovectorError as error:
            if ctx.params.get("debug"):
                raise
            from covector.cli.console import complain

            complain(error)
            raise typer.Exit(ERROR_CODE) from error


def _load(name: str, command: Command) -> Any:
    module, attribute = command.target.split(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        loaded = get_command(target)
        loaded.name = name
        return loaded
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name)(target)
    return get_command(single)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"covector {covector.__version__}")
        raise typer.Exit()


app = typer.Typer(
    cls=LazyGroup,
    name="covector",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def covector_command(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="COVECTOR_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The gradient as a first-class value: where it comes from, what carries it, how it becomes a step.

    [bold]Examples[/bold]
      covector papers --status working       which papers have an experiment
      covector reproduce fedkseed            run one of them, in seconds
      covector reproduce --all --site site   run them all and write a site
      covector data get sentiment            fetch a data set once

    [dim]covector COMMAND --help tells more of each. Errors exit with 2.[/dim]
    """
