"""One byte per gradient on real digits: the code's bias, the swarm's bits, its bytes, and its accuracy."""

from __future__ import annotations

import torch
from torch import nn

from covector import Objective, SketchPool, data, trees
from covector.evidence import Budget, Evidence, Finding, figure, paper
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_worker import Worker, exchange
from covector.gradients import OneByte
from covector.random import integers

Batch = tuple[torch.Tensor, torch.Tensor]


def code_bias(draws: int) -> float:
    """Largest deviation of the decoded mean from the value, in its own standard errors, over magnitudes of the code."""
    code = OneByte(1 << 24)
    values = torch.logspace(5.0, 9.0, 40, dtype=torch.float64)
    decoded = code.decode(code.encode(values.repeat(draws, 1), seed=1)).double()
    errors = (decoded.std(0) / draws**0.5).clamp_min(1e-9)
    return float(((decoded.mean(0) - values).abs() / errors).max())


def worker(samples: int, origin: int, founders: dict[int, int], seed: int) -> Worker:
    """A worker with a fresh model; equal seeds give equal models and headers."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    objective = Objective(module, nn.functional.cross_entropy)
    header = SwarmHeader.of(objective.params, SketchPool(key=seed, size=4096), lr=0.02, key=seed)
    return Worker(Peer(header, origin=origin, samples=samples, founders=founders), objective)


def train(workers: list[Worker], batches: list[list[Batch]]) -> int:
    """Run the workers over ``batches[iteration][sample]``; returns the bytes that moved between them."""
    moved, peers = 0, [member.peer for member in workers]
    for number, row in enumerate(batches):
        at = 0
        for member in workers:
            member.refresh()
            own = row[at : at + member.peer.samples]
            at += member.peer.samples
            member.contribute(member.measure(own)[1], now=float(number))
        moved += exchange(peers, now=float(number))
    for member in workers:
        member.refresh()
    return moved


def accuracy(member: Worker, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers of a worker's model."""
    with torch.no_grad():
        return float((member.objective.outputs((x, y)).argmax(1) == y).double().mean())


@paper(
    "one-byte-per-gradient",
    parts=["covector.federated.swarm.Peer", "covector.federated.swarm_worker.Worker", "covector.gradients.OneByte"],
)
def evidence(budget: Budget) -> Evidence:
    """Three workers that share one byte a scalar against one worker that does all their work."""
    digits = data.load("digits")
    x, y = digits.x.float().reshape(len(digits.y), -1) / digits.x.max(), digits.y.long()
    train_index, test = torch.as_tensor(digits.splits["train"]), digits.splits["test"]
    iterations = budget.choose(smoke=60, full=1500)
    drawn = integers(budget.seed, train_index.numel(), iterations * 3 * 32).view(iterations, 3, 32)
    batches = [[(x[train_index[pick]], y[train_index[pick]]) for pick in row] for row in drawn]
    seed = budget.seed + 1
    founders = {1: 1, 2: 1, 3: 1}
    swarm = [worker(1, origin, founders, seed) for origin in founders]
    before = accuracy(swarm[0], x[test], y[test])
    curve, moved, part = [before], 0, max(1, iterations // 12)
    for start in range(0, iterations, part):
        moved += train(swarm, batches[start : start + part])
        curve.append(accuracy(swarm[0], x[test], y[test]))
    digests = {trees.digest(member.objective.params) for member in swarm}
    single = worker(3, 1, {1: 3}, seed)
    train([single], batches)
    apart, alone = curve[-1], accuracy(single, x[test], y[test])
    path = budget.path("accuracy-by-iteration.svg")
    with figure(path, x="iteration", y="test accuracy") as axes:
        axes.plot([min(i * part, iterations) for i in range(len(curve))], curve, "o-", label="3 workers, one byte each")
        axes.axhline(alone, ls="--", color="gray", label="1 worker, 3 samples, at the end")
        axes.legend(frameon=False)
    bias = code_bias(budget.choose(smoke=2000, full=50_000))
    per_peer = moved / iterations / 6
    dense = 4 * trees.numel(swarm[0].objective.params)
    note = f"MLP 64-64-10, {iterations} iterations of 3 samples, learning rate 0.02, not tuned"
    findings = [
        Finding(
            "A scalar takes one byte and is unbiased", "one byte", bias, 4.5, "standard errors of the mean",
            bias < 4.5, "largest of 40 magnitudes; baseline: the limit used. The paper's own code needs nine bits",
        ),
        Finding(
            "All machines hold the same model", "same", len(digests), 1, "different SHA-256 among 3 workers",
            len(digests) == 1, note,
        ),
        Finding(
            "Sharing scalars loses nothing against one machine", "comparable", apart, alone, "test accuracy",
            abs(apart - alone) <= 0.02, f"within 0.02 at equal samples; before training {before:.3f}; {note}",
        ),
        Finding(
            "Bandwidth is bytes, not gradients", "1 byte and identifiers", per_peer, dense, "bytes",
            per_peer < 100, "one contribution to one other peer, frame included; baseline: the gradient in fp32",
        ),
    ]  # fmt: skip
    return Evidence("one-byte-per-gradient", findings, [path])
