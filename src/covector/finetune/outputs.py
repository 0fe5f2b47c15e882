"""The whole job: run the methods, write model, patch, results and report to one folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covector import language
from covector.finetune.engines import Engine
from covector.finetune.progress import Listener
from covector.finetune.report import write_report
from covector.finetune.run import MethodResult, Workbench
from covector.finetune.scoring import Scorecard
from covector.finetune.settings import Settings
from covector.gradients.patch import Patch
from covector.trees import numel

__all__ = ["Outcome", "finetune"]


@dataclass
class Outcome:
    """What a fine-tuning left.

    Args:
        out: the folder.
        base: test scores of the untouched model.
        calibrated: its accuracy after moving the threshold, for two-class tasks.
        results: by method, the main one first.
        parameters: number of parameters trained.
        base_predictions: what the untouched model says to a few test examples.
        patch: path of the patch, for a federated main method.
    """

    out: Path
    base: Scorecard
    calibrated: float | None
    results: dict[str, MethodResult]
    parameters: int
    base_predictions: list[dict[str, Any]]
    patch: Path | None = None

    @property
    def main(self) -> MethodResult:
        """The method the settings asked for."""
        return next(iter(self.results.values()))

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-ready."""
        methods = {
            name: {
                "settings": result.settings.to_dict(),
                "test": result.test.to_dict(),
                "gain": _gain(self.base, result.test),
                "seconds": result.seconds,
                "bytes_up_per_client_round": result.bytes_up,
                "bytes_down_per_client_round": result.bytes_down,
                "bytes_total": sum(record.bytes for record in result.records),
                "peak_memory_bytes": result.memory,
                "digest": result.digest,
                "privacy": result.privacy,
                "validation": [[r.round, r.validation] for r in result.records if r.validation is not None],
            }
            for name, result in self.results.items()
        }
        return {
            "base": self.base.to_dict(),
            "calibrated_base_accuracy": self.calibrated,
            "parameters": self.parameters,
            "methods": methods,
            "patch_bytes": self.patch.stat().st_size if self.patch else None,
        }


def _gain(base: Scorecard, after: Scorecard) -> dict[str, Any] | None:
    if after.overall.metric != "accuracy":
        return None
    difference = after.overall.per_example_correct - base.overall.per_example_correct
    low, high = language.bootstrap(difference)
    return {"value": float(difference.mean()), "interval": [low, high]}


def finetune(
    settings: Settings,
    out: str | Path,
    compare: Iterable[str] = (),
    listeners: Iterable[Listener] = (),
    resume: bool = False,
    engine: Engine | None = None,
    save: bool = True,
    compare_rounds: int | None = None,
) -> Outcome:
    """Fine-tune as the settings say and write the results to a folder.

    Args:
        settings: the main method and everything common.
        out: the folder: ``model/``, ``model.patch``, ``*.journal``, ``metrics.jsonl``, ``results.json``,
            ``report.html``.
        compare: further methods, run afterwards with their own defaults on the same model and data.
        listeners: called with each :class:`~covector.finetune.RoundRecord`.
        resume: go on with the run that is in ``out``.
        engine: drives the federated methods; default: :class:`~covector.finetune.Embedded`.
        save: write the fine-tuned model (the patch is written in any case).
        compare_rounds: rounds of the compared methods; default: as many as the main one has.

    Returns:
        The scores before and after, and where things are.

    Raises:
        ArgumentError: an engine for a method that is not federated.
        MismatchError: ``out`` holds another run.
    """
    folder = Path(out)
    bench = Workbench(settings, folder, listeners, resume, engine)
    base, calibrated = bench.base()
    base_predictions = bench.samples(bench.model)
    outcome = Outcome(folder, base, calibrated, {}, numel(bench.objective.params), base_predictions)
    for method in dict.fromkeys([settings.method, *compare]):
        chosen = settings
        if method != settings.method:
            chosen = settings.changed(method=method, rounds=compare_rounds or settings.rounds)
        result = outcome.results[method] = bench.run(chosen)
        if method != settings.method:
            continue
        if result.ledger is not None:
            outcome.patch = folder / "model.patch"
            name = settings.model if "/" not in settings.model else Path(settings.model).name
            Patch.make(bench.replica.theta0, result.ledger, name).save(outcome.patch)
        if save and method != "lora":
            language.save_model(bench.model, bench.tokenizer, folder / "model")
    (folder / "results.json").write_text(json.dumps(outcome.to_dict(), indent=1) + "\n", encoding="utf-8")
    write_report(outcome, folder / "report.html")
    return outcome
