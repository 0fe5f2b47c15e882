"""``covector version``."""

from __future__ import annotations

import typer

import covector

__all__ = ["version"]


def version() -> None:
    """Print the version.

    [bold]Example[/bold]
      covector version
    """
    typer.echo(f"covector {covector.__version__}")
