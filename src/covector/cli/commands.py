"""The table of commands: to add one, write its function in a module of its own and add one line here.

The module is imported only when its command runs, so it may import what it likes; ``covector --help`` shows
the line below and stays fast. A command is a function with typed arguments, as typer takes them, or a
``typer.Typer`` with commands of its own.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "Command"]


class Command(NamedTuple):
    """Where a command lives and what the overview says of it.

    Args:
        target: ``"module:attribute"``.
        help: one line.
    """

    target: str
    help: str


COMMANDS = {
    "finetune": Command("covector.cli.finetune:finetune", "Fine-tune a language model across clients for KB a round."),
    "compare": Command("covector.cli.compare:compare", "Compare optimizers: same budget, several seeds, intervals."),
    "inspect": Command("covector.cli.inspect:inspect", "See a model's loss surface: sharpness, spectrum, noise."),
    "patch": Command("covector.cli.patch:app", "Make, apply, merge and undo patches of a model: a few KB each."),
    "papers": Command("covector.cli.papers:papers", "List the 120 papers: station, year, open or working."),
    "reproduce": Command("covector.cli.reproduce:reproduce", "Run papers' experiments: claim beside measurement."),
    "data": Command("covector.cli.data:app", "List and fetch real data and pretrained models."),
    "info": Command("covector.cli.info:info", "Show versions, devices, kernels and installed extras."),
    "version": Command("covector.cli.version:version", "Print the version."),
}
