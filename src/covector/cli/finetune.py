"""``covector finetune``: fine-tune a language model across clients for kilobytes a round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from covector.cli.console import out as console
from covector.cli.live import LiveView
from covector.errors import ArgumentError
from covector.finetune import METHODS, PRESETS, Engine, Flower, Outcome, Settings
from covector.finetune import finetune as run_finetune
from covector.finetune.figures import human_bytes
from covector.finetune.settings import FEDERATED

__all__ = ["finetune"]

_PROTECTION, _ENGINE = "Protection", "Engine"


def finetune(
    model: Annotated[
        str, typer.Option(help="Catalog name, or the folder of a Hugging Face causal language model.")
    ] = "smollm2-135m-instruct",
    data: Annotated[
        str,
        typer.Option(help="Built-in corpus, or a JSONL file of text / prompt+completion / text+label."),
    ] = "sentiment",
    by: Annotated[str, typer.Option(help="Field of the JSONL that names the client.", metavar="FIELD")] = "client",
    method: Annotated[str, typer.Option(help="One of: " + ", ".join(METHODS) + ".")] = "sketch",
    compare: Annotated[str, typer.Option(help="Further methods to run beside it, comma-separated.")] = "",
    preset: Annotated[str, typer.Option(help="A set of defaults: " + ", ".join(PRESETS) + ".")] = "",
    clients: Annotated[int | None, typer.Option(help="Clients sampled a round; all if not given.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Communication rounds.")] = None,
    local_steps: Annotated[int | None, typer.Option(help="Steps a client takes in a round.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Size of the pool: K seeds, or the N numbers of a sketch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the learning rate over the rounds: 'constant', 'linear' or 'cosine'.")
    ] = None,
    eps: Annotated[float | None, typer.Option(help="Step of finite differences.")] = None,
    wire: Annotated[str | None, typer.Option(help="kseed's messages: 'compact' or 'faithful'.")] = None,
    examples: Annotated[int | None, typer.Option(help="At most so many training examples a client.")] = None,
    test_examples: Annotated[int | None, typer.Option(help="At most so many test examples a client.")] = None,
    dtype: Annotated[str | None, typer.Option(help="'float32' or 'bfloat16'.")] = None,
    device: Annotated[str | None, typer.Option(help="'cpu' or a CUDA device.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    dp_noise: Annotated[
        float | None,
        typer.Option(
            help="Differential privacy: what each client sends gets Gaussian noise of deviation dp-noise x dp-clip. "
            "More noise is a smaller epsilon and slower learning.",
            metavar="SIGMA",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    dp_clip: Annotated[
        float | None,
        typer.Option(
            help="Bound on what one client can say: each scalar (sketch: its vector's norm) is clipped to it first. "
            "Without noise it promises nothing.",
            metavar="C",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    dp_delta: Annotated[
        float | None, typer.Option(help="Delta at which epsilon is reported.", rich_help_panel=_PROTECTION)
    ] = None,
    screen_bound: Annotated[
        float | None,
        typer.Option(
            help="The server bounds scalars (sketch: norms) beyond so many times their running median; 0 is off.",
            metavar="C",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    screen_policy: Annotated[
        str | None, typer.Option(help="'clip' such a scalar to the bound or 'drop' it.", rich_help_panel=_PROTECTION)
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="'inprocess': all clients here, one after the other, over one model. 'flower': each client a process "
            "of its own on Flower, with its own model and only its own data; the same bits.",
            rich_help_panel=_ENGINE,
        ),
    ] = "inprocess",
    superlink: Annotated[
        str | None,
        typer.Option(
            help="A Flower SuperLink on this machine whose SuperNodes are the clients; none: one is started.",
            metavar="HOST:PORT",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(help="PEM file that vouches for the SuperLink.", metavar="FILE", rich_help_panel=_ENGINE),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="SuperNodes to wait for before the first round.", rich_help_panel=_ENGINE)
    ] = None,
    round_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds until a round on Flower is closed without those that did not answer; 3600 if not given.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    late: Annotated[
        str | None,
        typer.Option(
            help="'refuse' what comes after its round was closed, or 'apply' it with a weight halved for each round.",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")] = Path("runs/finetune"),
    resume: Annotated[bool, typer.Option(help="Go on with the run that is in OUT, from its journal.")] = False,
    save_model: Annotated[bool, typer.Option(help="Write the fine-tuned model (the patch is always written).")] = True,
) -> None:
    """Fine-tune all parameters of a language model across clients that share a few KB a round.

    Every client keeps its data. Messages are encoded, counted and applied as on real
    machines; the server's only state is a journal, so a killed run goes on with
    [cyan]--resume[/cyan] and ends with the same bits.

    OUT receives [cyan]report.html[/cyan], the model, a patch of kilobytes that reproduces it
    from the base bit for bit, the journal, metrics (JSON Lines and TensorBoard).

    [bold]Examples[/bold]
      covector finetune --preset demo
      covector finetune --method kseed --rounds 40 --local-steps 8 --wire faithful
      covector finetune --data reviews.jsonl --by store --method sketch-zo
      covector finetune --model ./my-llama --data texts.jsonl --method sketch --seeds 16384
      covector finetune --method kseed --dp-noise 4 --dp-clip 10 --dp-delta 1e-5
      covector finetune --engine flower --rounds 3
    """
    if preset and preset not in PRESETS:
        raise ArgumentError("preset", preset, "one of " + ", ".join(map(repr, PRESETS)))
    given = {
        "rounds": rounds, "local_steps": local_steps, "seeds": seeds, "lr": lr, "eps": eps, "wire": wire,
        "clients": clients, "examples": examples, "test_examples": test_examples, "dtype": dtype, "device": device,
        "seed": seed, "batch_size": batch_size, "dp_noise": dp_noise, "dp_clip": dp_clip, "dp_delta": dp_delta,
        "screen_bound": screen_bound, "screen_policy": screen_policy, "late": late, "schedule": schedule,
    }  # fmt: skip
    chosen = PRESETS.get(preset, {"settings": {}, "compare": ()})
    values = {**chosen["settings"], **{name: value for name, value in given.items() if value is not None}}
    settings = Settings(model=model, data=data, by=by, method=method, **values)
    others = [name.strip() for name in compare.split(",") if name.strip()] or list(chosen["compare"])
    for name in others:
        if name not in METHODS:
            raise ArgumentError("compare", name, "one of " + ", ".join(map(repr, METHODS)))
    options = {
        "superlink": superlink, "root_certificates": root_certificates, "nodes": nodes, "timeout": round_timeout,
    }  # fmt: skip
    carrier = engine_of(engine, method, out, {name: value for name, value in options.items() if value is not None})
    beside = None if rounds else chosen.get("compare_rounds")
    shown = {settings.method: settings.rounds, **dict.fromkeys(others, beside or settings.rounds)}
    with LiveView({**shown, settings.method: settings.rounds}) as view:
        outcome = run_finetune(settings, out, others, [view], resume, carrier, save_model, beside)
    console().print(summary(outcome))
    for line in privacy_lines(outcome):
        console().print(line, soft_wrap=True)
    console().print(f"report: {outcome.out / 'report.html'}", soft_wrap=True)
    if outcome.patch is not None:
        size = human_bytes(outcome.patch.stat().st_size)
        console().print(f"patch:  {outcome.patch} ({size}); apply it with: covector patch apply", soft_wrap=True)


def engine_of(name: str, method: str, out: Path, options: dict[str, Any]) -> Engine | None:
    """The engine of that name; ``None`` is the embedded one.

    Raises:
        ArgumentError: no such engine, options of another one, or a method that is not federated.
        MissingExtraError: Flower is not installed.
    """
    if name not in ("inprocess", "flower"):
        raise ArgumentError("engine", name, "'inprocess' or 'flower'")
    if name == "inprocess":
        if options:
            option, value = next(iter(options.items()))
            argument = "round_timeout" if option == "timeout" else option
            raise ArgumentError(argument, value, "nothing, unless --engine is 'flower'")
        return None
    if method not in FEDERATED:
        raise ArgumentError(
            "engine", name, f"'inprocess' with --method {method}; Flower is for " + ", ".join(FEDERATED)
        )
    return Flower(out / "flower", **options)


def privacy_lines(outcome: Outcome) -> list[str]:
    """What the noise of each private method adds up to."""
    lines = []
    for name, result in outcome.results.items():
        if result.privacy is None:
            continue
        spent = result.privacy["epsilon"]
        promise = "clipped without noise: no privacy is promised" if spent is None else f"epsilon {spent:.3g}"
        at = f" at delta {result.privacy['delta']:g} for a whole client" if spent is not None else ""
        lines.append(f"privacy of {name}: {promise}{at}, {result.privacy['releases']} values released by each")
    return lines


def summary(outcome: Outcome) -> Table:
    """Test scores and traffic of each method as a table."""
    base = outcome.base.overall
    table = Table(title=f"test {base.metric}, {base.n} examples, 95 % intervals")
    for column in ("method", "value", "interval", "up / round", "down / round", "seconds"):
        table.add_column(column, justify="left" if column == "method" else "right")
    low, high = base.interval()
    table.add_row("base model", f"{base.value:.3f}", f"{low:.3f} - {high:.3f}", "", "", "")
    if outcome.calibrated is not None:
        table.add_row("base, threshold moved", f"{outcome.calibrated:.3f}", "", "", "", "")
    for name, result in outcome.results.items():
        scores = result.test.overall
        low, high = scores.interval()
        traffic = [human_bytes(count) if count else "-" for count in (result.bytes_up, result.bytes_down)]
        table.add_row(name, f"{scores.value:.3f}", f"{low:.3f} - {high:.3f}", *traffic, f"{result.seconds:.0f}")
    return table
