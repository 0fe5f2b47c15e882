"""FedKSeed on a language model: four clients, all 135 million parameters, a few rounds, against a sketch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from covector.errors import DataError, MissingExtraError
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Finding

__all__ = ["language_findings"]

ROUNDS = {"kseed": 6, "sketch": 6}
LIMIT = 17_988
CLAIM = "A language model is fine-tuned through K scalars"


def language_findings(budget: Budget) -> tuple[list[Finding], list[Path]]:
    """Run both methods; without the optional packages or the model, one undecided finding says so."""
    try:
        return _measured(budget)
    except (MissingExtraError, DataError) as error:
        note = f"not run: {error}"
        return [Finding(CLAIM, "+7.26 % relative Rouge-L", "not run", "none", "test accuracy", None, note)], []


def _measured(budget: Budget) -> tuple[list[Finding], list[Path]]:
    from covector.errors import require_extra

    require_extra("transformers", "language")
    from covector.finetune import Settings, Workbench

    settings = Settings(
        method="kseed", rounds=ROUNDS["kseed"], test_examples=50, check_examples=24, check_every=2, seed=budget.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(settings, Path(folder))
        base, _ = bench.base()
        kseed = bench.run(settings)
        sketch = bench.run(settings.changed(method="sketch").changed(rounds=ROUNDS["sketch"]))
    setting = (
        f"SmolLM2-135M-Instruct, sentiment of four domains as four clients, {settings.rounds} rounds, "
        f"{base.overall.n} test examples, accuracy of the untouched model {base.overall.value:.3f}"
    )
    low, high = kseed.test.overall.interval()
    moved = low > base.overall.value or high < base.overall.value
    used = kseed.bytes_up + kseed.bytes_down
    findings = [
        Finding(
            CLAIM, "+7.26 % relative Rouge-L over baselines", kseed.test.overall.value, base.overall.value,
            "test accuracy", (low > base.overall.value) if moved else None,
            f"{setting}; {settings.local_steps} local steps a round where the paper takes 200 for 40 rounds; bootstrap "
            f"interval {low:.3f} to {high:.3f}, decided where it leaves the untouched model's accuracy out",
        ),
        Finding(
            "A round of a language model takes less than 18 kB a client", LIMIT, used, 2 * 4 * 134_515_008, "bytes",
            used < LIMIT,
            f"{setting}; encoded messages, mean over clients and rounds, {settings.local_steps} local steps; baseline: "
            "fp32 parameters both ways, by arithmetic",
        ),
        Finding(
            "First-order clients learn more on the same wire (a claim of this library)", "better",
            sketch.test.overall.value, kseed.test.overall.value, "test accuracy",
            sketch.test.overall.interval().low > kseed.test.overall.value,
            f"{setting}; backpropagation projected onto 4096 numbers, {sketch.settings.rounds} rounds of one step, "
            f"{sketch.bytes_up + sketch.bytes_down:,.0f} bytes a client and round; baseline: FedKSeed",
        ),
    ]  # fmt: skip
    path = budget.path("language-model-accuracy-by-round.svg")
    with figure(path, x="round", y="validation accuracy") as axes:
        for label, result in (("FedKSeed, K=4096", kseed), ("sketch + backpropagation, N=4096", sketch)):
            looks = [(r.round, r.validation) for r in result.records if r.validation is not None]
            axes.plot([r for r, _ in looks], [v for _, v in looks], "o-", label=label)
    return findings, [path]
