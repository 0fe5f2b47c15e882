"""Just one byte (per gradient): machines that share only the scalars of their zeroth-order steps, in a byte each."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from covector import trees
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.one_byte_processes import process_findings
from covector.evidence.experiments.one_byte_swarm import BATCH, Story, Swarm, header_of, mezo, task
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.federated.swarm_messages import Contribution
from covector.gradients import Dense, OneByte
from covector.random import derive, uniform

STEP = 2 ** (1 / 8) - 1  # the code's grid


@paper(
    "one-byte-per-gradient",
    parts=[
        "covector.gradients.OneByte",
        "covector.federated.swarm.Peer",
        "covector.federated.swarm_worker.Worker",
        "covector.federated.tcp_run",
    ],
)
def evidence(budget: Budget) -> Evidence:
    """The code's error, equal bits among peers that come and go, accuracy against one process, and bytes."""
    digits = Digits.load()
    findings, drawn = code_findings(budget)
    findings += [dealing_finding(digits), *swarm_findings(digits, budget)]
    findings += [bytes_finding(samples=8)]
    accuracy, curve = accuracy_finding(digits, budget)
    figures = [drawn, curve]
    findings.append(accuracy)
    if budget.name == "full":
        findings += process_findings()
    return Evidence("one-byte-per-gradient", findings, figures)


def code_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """How far a decoded byte may be from the number, and how far its mean."""
    code, scale = OneByte(1 << 30), 1 << 30
    # over the whole range of the code, 0.0043 to 234 times its scale
    values = scale * 2.0 ** (uniform(budget.seed, 100_000).double() * 15.6 - 7.75)
    decoded = code.decode(code.encode(values, seed=budget.seed + 1)).double()
    relative = (decoded / values - 1).abs()
    draws = 100_000
    points = scale * torch.tensor([0.0005, 0.0137, 0.7371, 1.0, 3.3, 199.0], dtype=torch.float64)
    seeds = [derive(budget.seed, "draws", i) for i in range(len(points))]
    drawn = torch.stack([code.decode(code.encode(p.repeat(draws), seed=s)) for p, s in zip(points, seeds, strict=True)])
    means, errors = drawn.double().mean(1), drawn.double().std(1) / draws**0.5
    biases = (means / points - 1).abs()[1:]
    # below the first level of the grid most draws are zero, so that the mean scatters more than a thousandth
    below = float((means - points).abs()[0] / errors[0])
    grid = code.grid[1:].double()
    nearest = float(((grid[1:] - grid[:-1]) / (grid[1:] + grid[:-1])).max())
    path = budget.path("error-of-one-byte-by-magnitude.svg")
    with figure(path, x="magnitude / scale", y="relative error") as axes:
        axes.set_ylim(-0.1, 0.16)
        chosen = values.argsort()[:: len(values) // 2000]
        axes.semilogx(values[chosen] / scale, (decoded / values - 1)[chosen], ".", markersize=2, label="a draw")
        axes.axhline(STEP, color="black", linewidth=1, linestyle=":", label="a step of the grid")
        axes.axhline(-STEP / (1 + STEP), color="black", linewidth=1, linestyle=":")
        axes.semilogx(points[1:] / scale, (means / points - 1)[1:], "o", label=f"mean of {draws:,} draws")
    findings = [
        Finding(
            "A slope fits in one byte, sign included", "6.4 % steps, 9 bits", float(relative.max()), nearest,
            "largest relative error", float(relative.max()) <= STEP + 1e-6,
            f"100,000 magnitudes over 16 octaves; rounding is at random, so the error may be a step of the grid, "
            f"{STEP:.4f}; baseline: the bound of rounding to nearest, which is biased. The paper's code "
            "needs a sign beside 255 levels, and its decoded value is never used",
        ),
        Finding(
            "The byte is unbiased (a claim of this library)", 0, float(biases.max()), nearest,
            "relative error of the mean", float(biases.max()) <= 1e-3 and below < 4.0,
            f"the worst of {len(biases)} magnitudes, means of {draws:,} draws, holds up to 0.001; one below the grid "
            f"is off by {below:.1f} standard errors (up to 4); baseline: what rounding to nearest may be off by",
        ),
    ]  # fmt: skip
    return findings, path


def dealing_finding(digits: Digits) -> Finding:
    """n workers with a sample each against one worker with n samples."""
    count, iterations = 4, 5
    digests = []
    for founders in ({5 + i: 1 for i in range(count)}, {5: count}):
        swarm = Swarm(digits, Story(founders, iterations), seed=3)
        swarm.run()
        digests += [trees.digest(worker.objective.params) for worker in swarm.workers.values()]
    different = len(set(digests)) - 1
    moved = digests[0] != trees.digest(task(3).params)
    return Finding(
        f"{count} workers with a sample each are one worker with {count} samples", "the same update", different, 0,
        "parameters that differ in SHA-256", different == 0 and moved,
        f"digits, linear classifier, {iterations} iterations, the same batches dealt to {count} peers or to one",
    )  # fmt: skip


def swarm_findings(digits: Digits, budget: Budget) -> list[Finding]:
    """A run in which a peer joins and another is killed."""
    iterations = budget.choose(smoke=30, full=100)
    story = Story({1: 2, 101: 2, 201: 2}, iterations, joins=10, killed=20)
    swarm = Swarm(digits, story, seed=budget.seed)
    swarm.run()
    split = sum(len(set(seen.values())) > 1 for seen in swarm.digests.values())
    newcomer = [i for i, seen in swarm.digests.items() if story.newcomer in seen]
    survivors = {trees.digest(worker.objective.params) for worker in swarm.workers.values()}
    ledgers = {worker.peer.replica.ledger.digest() for worker in swarm.workers.values()}
    moved = survivors != {trees.digest(task(budget.seed).params)}
    model = len(Dense(task(budget.seed).params).to_bytes())
    largest = max(swarm.sizes.get("sync", [0]))
    setting = (
        f"three founders of two samples each, one more joins at iteration 10, one is killed at 20, {iterations} "
        "iterations; peers in one process, messages as bytes, a simulated clock"
    )
    return [
        Finding(
            "Machines come and go, and all hold the same model", "proof of concept", split, len(swarm.digests),
            "iterations in which SHA-256 differed",
            split == 0 and len(swarm.workers) == 3 and len(survivors) == len(ledgers) == 1 and moved,
            f"{setting}; checked after every iteration of {len(swarm.digests)} (baseline), at the end "
            f"{len(swarm.workers)} peers with {len(survivors)} digest",
        ),
        Finding(
            "A newcomer need not download the model (a claim of this library)", "downloads it", largest, model, "bytes",
            bool(newcomer) and min(newcomer) <= story.joins + 2 and largest < 16_384 + 1024,  # type: ignore[operator]
            f"the largest message that brought a peer up to date, here the log of {story.joins} iterations; at most "
            "the ledger of 16 kB, whatever the model's size; baseline: this linear classifier in fp32 (650 parameters)",
        ),
    ]  # fmt: skip


def bytes_finding(samples: int) -> Finding:
    """The bytes that a worker sends to another in a round."""
    header = header_of(0)
    codes = header.encode(torch.randn(samples, dtype=torch.float64), 7, 1, 0)
    sent, single = (
        len(Contribution(1, 7, 6, 3 * len(part), 0, part).to_bytes(header.tag)) for part in (codes, codes[:1])
    )
    per_scalar = (sent - single) / (samples - 1)
    return Finding(
        "A gradient costs one byte", 1, per_scalar, len(Dense(task(0).params).to_bytes()) / samples, "bytes a gradient",
        per_scalar == 1.0,
        f"what each further gradient adds to a worker's message; that of a round with {samples} has {sent} bytes, "
        f"{sent - samples} of them frame, run, origin, iteration and chain. Baseline: the averaged gradient of 650 "
        "parameters in fp32, per sample",
    )  # fmt: skip


def accuracy_finding(digits: Digits, budget: Budget) -> tuple[Finding, Path]:
    """A swarm that loses and gains members against one process that does the same number of samples."""
    iterations, every = budget.choose(smoke=(40, 10), full=(300, 10))
    seeds = [derive(budget.seed, "accuracy", i) & 0xFFFF for i in range(budget.choose(smoke=1, full=3))]
    ours, alone, curves = [], [], []
    for seed in seeds:
        story = Story({1: 4, 101: 4, 201: 4}, iterations, joins=10, killed=20)
        swarm = Swarm(digits, story, seed)
        looks = [digits.accuracy(task(seed))]
        first = swarm.workers[1]

        def look(first=first, looks=looks) -> None:  # type: ignore[no-untyped-def]
            if first.peer.iteration % every == 0:
                first.refresh()
                looks.append(digits.accuracy(first.objective))

        first.peer.on_close.append(look)
        swarm.run()
        ours.append(digits.accuracy(first.objective))
        single, single_looks = mezo(digits, seed, samples=10, iterations=round(swarm.samples / 10), every=every)
        alone.append(digits.accuracy(single))
        curves.append((looks, [looks[0], *single_looks]))
    path = budget.path("accuracy-by-iteration.svg")
    with figure(path, x="iteration", y="held-out accuracy") as axes:
        for which, label in enumerate(("swarm: one joins at 10, one is killed at 20", "MeZO, one process")):
            means = [statistics.fmean(values) for values in zip(*(pair[which] for pair in curves), strict=False)]
            axes.plot([every * i for i in range(len(means))], means, label=label)
    apart = statistics.fmean(ours) - statistics.fmean(alone)
    enough = budget.name == "full"
    setting = (
        f"digits, linear classifier, batches of {BATCH}, {iterations} iterations, learning rate of both 0.05 over the "
        f"root of the samples, {len(seeds)} seed(s)"
    )
    return Finding(
        "A swarm trains like one machine", "matches MeZO", statistics.fmean(ours), statistics.fmean(alone),
        "held-out accuracy", abs(apart) <= 0.01 if enough else None,
        f"{'holds within 0.01' if enough else 'too short to decide'}; {setting}; baseline: the published loop in one "
        "process with fp32 scalars and as many samples in all; the paper fine-tunes language models on SST-2",
    ), path  # fmt: skip
