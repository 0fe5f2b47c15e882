"""``covector patch``: make, look at, apply, merge and undo the kilobytes that turn a base model into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from covector import language, trees
from covector.cli.console import out as console
from covector.finetune.figures import human_bytes
from covector.finetune.methods import resume_server
from covector.gradients.journal import Journal
from covector.gradients.patch import Patch

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ModelOption = Annotated[str, typer.Option(help="Catalog name or folder of the base model.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder the model is written to.", metavar="DIR")]
FileOption = Annotated[Path, typer.Option("--out", help="File the patch is written to.", metavar="FILE")]
FileArgument = Annotated[Path, typer.Argument(help="A .patch file.", exists=True, dir_okay=False)]


@app.callback()
def patch_command() -> None:
    """Patches: a few KB that reproduce a fine-tuned model from its base, bit for bit.

    [bold]Examples[/bold]
      covector patch info runs/finetune/model.patch
      covector patch apply runs/finetune/model.patch --model smollm2-135m-instruct --out tuned
    """


@app.command()
def make(
    journal: Annotated[Path, typer.Argument(help="Journal of a run.", exists=True, dir_okay=False)],
    model: ModelOption,
    out: FileOption,
) -> None:
    """Make a patch from a run's journal and its base model.

    [bold]Example[/bold]
      covector patch make runs/finetune/sketch.journal --model smollm2-135m-instruct --out tuned.patch
    """
    base, _ = language.load_model(model)
    with Journal(journal) as opened:
        ledger = resume_server(opened).ledger
    patch = Patch.make(dict(base.named_parameters()), ledger, model)
    patch.save(out)
    console().print(f"{out}: {human_bytes(out.stat().st_size)}", soft_wrap=True)


@app.command()
def info(file: FileArgument) -> None:
    """Show what a patch is for: base model, hash, pool, size.

    [bold]Example[/bold]
      covector patch info runs/finetune/model.patch
    """
    table = Table(show_header=False)
    rows = {**Patch.load(file).info(), "size": human_bytes(file.stat().st_size)}
    for key, value in rows.items():
        table.add_row(key, str(value))
    console().print(table)


@app.command()
def apply(file: FileArgument, model: ModelOption, out: OutOption) -> None:
    """Write the model that a patch makes of its base.

    [bold]Example[/bold]
      covector patch apply runs/finetune/model.patch --model smollm2-135m-instruct --out tuned
    """
    _write(Patch.load(file), model, out)


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Patches over the same base and pool.", exists=True)],
    out: FileOption,
) -> None:
    """Add patches of one base and pool into one.

    [bold]Example[/bold]
      covector patch merge monday.patch tuesday.patch --out both.patch
    """
    patches = [Patch.load(file) for file in files]
    total = patches[0]
    for patch in patches[1:]:
        total = total.merge(patch)
    total.save(out)
    console().print(f"{out}: {human_bytes(out.stat().st_size)}", soft_wrap=True)


@app.command()
def undo(file: FileArgument, model: ModelOption, out: OutOption) -> None:
    """Take a patch off a fine-tuned model again and write the base.

    Applying rounds each parameter once, so that a few last bits may stay different;
    the command says whether the result is the base bit for bit.

    [bold]Example[/bold]
      covector patch undo model.patch --model runs/finetune/model --out base
    """
    patch = Patch.load(file)
    loaded, tokenizer = language.load_model(model)
    params: trees.Params = dict(loaded.named_parameters())
    restored = patch.undo(params)
    same = trees.digest(restored) == patch.base
    trees.copy_(params, restored)
    language.save_model(loaded, tokenizer, out)
    exactness = "bit for bit the base" if same else "the base up to the rounding of the last bit"
    console().print(f"model: {out} ({exactness})", soft_wrap=True)


def _write(patch: Patch, model: str, out: Path) -> None:
    loaded, tokenizer = language.load_model(model)
    params: trees.Params = dict(loaded.named_parameters())
    patch.apply(params, out=params)
    language.save_model(loaded, tokenizer, out)
    console().print(f"model: {out}", soft_wrap=True)
