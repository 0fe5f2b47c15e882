"""FedKSeed on a language model: four clients, all 135 million parameters, a few rounds, against a sketch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from covector.errors import DataError, MissingExtraError, require_extra
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Finding

__all__ = ["language_findings"]

ROUNDS = 6
LIMIT, PARAMETERS = 17_988, 134_515_008
REPORTED = "+7.26 % relative Rouge-L over baselines"
CLAIM = "A language model is fine-tuned through K scalars"


def language_findings(budget: Budget) -> tuple[list[Finding], list[Path]]:
    """Run both methods; without the optional packages or the model, one undecided finding says so."""
    try:
        return _measured(budget)
    except (MissingExtraError, DataError) as error:
        note = f"not run: {error}"
        return [Finding(CLAIM, REPORTED, "not run", "none", "test accuracy", None, note)], []


def _measured(budget: Budget) -> tuple[list[Finding], list[Path]]:
    require_extra("transformers", "language")
    from covector.finetune import Settings, Workbench
    from covector.language import bootstrap

    settings = Settings(
        method="kseed", wire="faithful", rounds=ROUNDS, test_examples=50, check_examples=24, check_every=2,
        seed=budget.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(settings, Path(folder))
        base, moved = bench.base()
        kseed = bench.run(settings)
        sketch = bench.run(settings.changed(method="sketch").changed(rounds=ROUNDS, wire="compact"))
    untouched = base.overall.value
    # moving one number of the untouched model, its threshold, is no fine-tuning: more is asked for
    floor = max(untouched, moved or 0.0)
    setting = (
        f"SmolLM2-135M-Instruct, sentiment of four domains as four clients, {ROUNDS} rounds, {base.overall.n} test "
        f"examples; accuracy of the untouched model {untouched:.3f}, with its threshold moved {floor:.3f}"
    )
    low, high = kseed.test.overall.interval()
    gain = sketch.test.overall.per_example_correct - kseed.test.overall.per_example_correct
    least, most = bootstrap(gain)
    first, last = sketch.test.overall.interval()
    used, other = (result.records[-1].bytes / len(result.records[-1].up) for result in (kseed, sketch))
    findings = [
        Finding(
            CLAIM, REPORTED, kseed.test.overall.value, floor, "test accuracy", _beyond(floor, low, high),
            f"{setting} (baseline); {settings.local_steps} local steps a round, in the paper 200 for 40 rounds; "
            f"bootstrap interval {low:.3f} to {high:.3f}, decided where it leaves the baseline out",
        ),
        Finding(
            "A round of a language model takes less than 18 kB a client", LIMIT, used, 2 * 4 * PARAMETERS, "bytes",
            used < LIMIT,
            f"{setting}; encoded messages of the faithful wire in the last round, mean over clients; "
            f"{settings.local_steps} local steps, each further one adds 6 bytes; baseline: fp32 parameters both ways, "
            "by arithmetic",
        ),
        Finding(
            "First-order clients learn more in fewer bytes (a claim of this library)", "better",
            sketch.test.overall.value, kseed.test.overall.value, "test accuracy", _beyond(0.0, least, most),
            f"{setting}; backpropagation projected onto 4096 numbers, one step a round, {other:,.0f} bytes in the last "
            f"round against {used:,.0f}; bootstrap interval {first:.3f} to {last:.3f}, of the paired difference to "
            f"FedKSeed (baseline) {least:.3f} to {most:.3f}, decided where that leaves zero out",
        ),
    ]  # fmt: skip
    path = budget.path("language-model-accuracy-by-round.svg")
    with figure(path, x="round", y="validation accuracy") as axes:
        for label, result in (("FedKSeed, K=4096", kseed), ("sketch + backpropagation, N=4096", sketch)):
            looks = [(r.round, r.validation) for r in result.records if r.validation is not None]
            axes.plot([r for r, _ in looks], [v for _, v in looks], "o-", label=label)
    return findings, [path]


def _beyond(value: float, low: float, high: float) -> bool | None:
    """Whether an interval lies above a value; None where it holds the value."""
    return None if low <= value <= high else low > value
