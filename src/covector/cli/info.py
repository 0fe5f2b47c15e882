"""``covector info``: what this installation has, for reports and for choosing extras."""

from __future__ import annotations

import importlib.util
import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from covector.cli.console import out

__all__ = ["EXTRAS", "describe", "info"]

# import names of the packages behind each optional extra
EXTRAS = {
    "language": ("transformers", "tokenizers", "gguf", "sentencepiece", "peft", "accelerate"),
    "data": ("rdata",),
    "federated": ("flwr", "dp_accounting"),
    "tensorboard": ("tensorboard",),
    "lightning": ("lightning",),
    "compare": ("optuna", "pytorch_optimizer"),
    "scipy": ("scipy",),
    "bench": ("psutil", "pytorch_optimizer"),
}


def info(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show versions, devices, the kernels that serve them, and which extras are installed.

    [bold]Examples[/bold]
      covector info
      covector info --json
    """
    record = describe()
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {text}" for key, text in value.items())
        table.add_row(name, Text(value))
    out().print(table)


def describe() -> dict[str, str | dict[str, str]]:
    """Gather what ``covector info`` shows.

    Returns:
        The environment, the kernels by device, and for each extra ``"installed"`` or what is missing.
    """
    from covector.evidence.environment import describe_environment

    return {
        **describe_environment(),
        "kernels": _kernels(),
        "extras": {name: _extra(name) for name in EXTRAS},
    }


def _kernels() -> dict[str, str]:
    import torch

    from covector.kernels import backend

    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    return {device: backend(torch.empty(0, device=device)) for device in devices}


def _extra(name: str) -> str:
    missing = [package for package in EXTRAS[name] if importlib.util.find_spec(package) is None]
    if not missing:
        return "installed"
    return f"missing {', '.join(missing)} (pip install 'covector[{name}]')"
