"""The report of a run: one HTML file with everything in it, to be opened by anybody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from covector.finetune.figures import bytes_figure, human_bytes, losses_figure, quality_figure, scores_figure
from covector.finetune.settings import METHODS
from covector.reporting import environment, write_page

if TYPE_CHECKING:
    from covector.finetune.outputs import Outcome

__all__ = ["write_report"]

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"


def write_report(outcome: Outcome, path: Path) -> None:
    """Write the report of ``outcome`` to ``path``.

    Args:
        outcome: what :func:`covector.finetune.finetune` returned.
        path: an ``.html`` file.
    """
    write_page(_TEMPLATE, _context(outcome), path, {"bytes": human_bytes})


def _context(outcome: Outcome) -> dict[str, Any]:
    data = outcome.to_dict()
    main = outcome.main
    federated = [name for name, result in outcome.results.items() if result.bytes_up]
    figures = {"scores": scores_figure(outcome)}
    if any(record.losses for record in main.records):  # private clients keep theirs
        figures["losses"] = losses_figure(main)
    figures["seconds"] = quality_figure(outcome, "seconds")
    if federated:
        figures["quality"] = quality_figure(outcome, "bytes")
        figures["bytes"] = bytes_figure(outcome)
    return {
        "data": data,
        "main": main,
        "name": main.settings.method,
        "settings": main.settings.to_dict(),
        "methods": data["methods"],
        "private": {name: result.privacy for name, result in outcome.results.items() if result.privacy},
        "about": {name: str(values["about"]) for name, values in METHODS.items()},
        "figures": figures,
        "events": [line for result in outcome.results.values() for record in result.records for line in record.events],
        "samples": list(zip(outcome.base_predictions, main.predictions, strict=True)),
        "full_bytes": 8 * outcome.parameters,
        "environment": environment(),
    }
