"""``covector reproduce``: run papers' experiments and set what they measured beside what was claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from covector.cli.console import out, status_text
from covector.errors import ArgumentError
from covector.evidence import Budget, DidNotRun, Evidence, build_site, collect, papers, run
from covector.evidence.findings import show
from covector.evidence.runner import Result
from covector.evidence.table import find

__all__ = ["reproduce"]


def _slugs() -> list[str]:
    return [paper.slug for paper in papers(status="working")]


def reproduce(
    slugs: Annotated[
        list[str] | None,
        typer.Argument(help="Papers, as 'covector papers' names them.", autocompletion=_slugs, metavar="SLUG"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All papers that are working.")] = False,
    budget: Annotated[
        str,
        typer.Option(help="'smoke' takes seconds and shows that it works; 'full' takes minutes.", metavar="smoke|full"),
    ] = "smoke",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of results; each paper writes into OUT/SLUG.", metavar="DIR")
    ] = Path("runs/evidence"),
    site: Annotated[
        Path | None,
        typer.Option(help="Write the evidence site here, from all results in OUT.", metavar="DIR"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and paper, nothing else.")] = False,
) -> None:
    """Run papers' experiments: each claim beside what is measured here, and whether it holds.

    Figures and [cyan]evidence.json[/cyan] are written to OUT/SLUG.

    The exit code says whether the experiments [bold]ran[/bold]: 0 when they did,
    whatever they found ("does not hold" is a result), 1 when one failed.

    [bold]Examples[/bold]
      covector reproduce fedkseed
      covector reproduce fedkseed one-byte-per-gradient --budget full --seed 1
      covector reproduce --all --site site
      covector reproduce fedkseed --json | jq .verdict
    """
    chosen = _chosen(slugs or [], every)
    budgets = {slug: Budget(budget, seed, folder / slug) for slug in chosen}
    results = [_run(slug, budgets[slug], quiet=as_json, place=(i, len(chosen))) for i, slug in enumerate(chosen, 1)]
    if site is not None:
        # this run's results come last and so replace older ones of the same papers
        index = build_site([*collect(folder), *results], site)
        Console(stderr=True, highlight=False).print(f"site: {index}", soft_wrap=True)
    if not as_json and len(results) != 1:
        out().print(_overview(results) if results else "No paper has evidence yet.")
    if any(isinstance(result, DidNotRun) for result in results):
        raise typer.Exit(1)


def _chosen(slugs: list[str], every: bool) -> list[str]:
    if every == bool(slugs):
        raise ArgumentError("SLUG", " ".join(slugs), "either papers by name or --all, not both and not neither")
    if every:
        return _slugs()
    open_ones = [slug for slug in slugs if find(slug).slug not in _slugs()]
    if open_ones:
        raise ArgumentError(
            "SLUG",
            open_ones[0],
            "a paper that has evidence; this one is open (covector papers --status working)",
        )
    return list(dict.fromkeys(slugs))


def _run(slug: str, budget: Budget, quiet: bool, place: tuple[int, int]) -> Result:
    label = slug if place[1] == 1 else f"[{place[0]}/{place[1]}] {slug}"
    with Console(stderr=True, quiet=quiet).status(Text(f"{label}, budget {budget.name}")):
        result = run(slug, budget)
    written = result.write(budget.out)
    if quiet:
        typer.echo(result.to_json())
    else:
        _print(result, written)
    return result


def _print(result: Result, written: Path) -> None:
    console, row = out(), find(result.slug)
    console.print(Text.assemble("\n", (row.title, "bold"), f"  {row.source or row.year}"))
    if isinstance(result, DidNotRun):
        console.print(Text.assemble(status_text(result.verdict), f": {result.error}"))
    else:
        console.print(_findings(result))
        verdict = status_text(result.verdict)
        console.print(Text.assemble("verdict: ", verdict, f" (budget {result.budget}, {result.seconds:.1f} s)"))
        for figure in result.figures:
            console.print(f"figure: {figure}", soft_wrap=True)
    console.print(f"written: {written}", soft_wrap=True, style="dim")


def _findings(result: Evidence) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("claim", ratio=1, min_width=24)
    for name in ("reported", "measured", "baseline"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("unit", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    for finding in result.findings:
        values = (show(finding.reported), show(finding.measured), show(finding.baseline), finding.unit)
        claim = Text.assemble(finding.claim, "\n", (finding.note, "dim"))
        table.add_row(claim, *map(Text, values), status_text(finding.verdict))
    return table


def _overview(results: list[Result]) -> Table:
    table = Table(title="\nOverview", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("paper")
    table.add_column("outcome")
    table.add_column("seconds", justify="right")
    for result in results:
        table.add_row(result.slug, status_text(result.verdict), f"{result.seconds:.1f}")
    return table
