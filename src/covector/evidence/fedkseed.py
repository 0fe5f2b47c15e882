"""FedKSeed on real digits: the bytes of its messages, the bits of its replay, and accuracy against the pool's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from covector import Objective, SeedPool, data, trees
from covector.evidence import Budget, Evidence, Finding, figure, paper
from covector.federated import KSeedClient, KSeedServer, Replica, RunHeader, run
from covector.random import derive

REPORTED_BYTES = 17_988


def clients_of(y: torch.Tensor, clients: int, seed: int) -> list[torch.Tensor]:
    """Indices of each client: the classes split by Dirichlet(0.5) shares."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[torch.Tensor]] = [[] for _ in range(clients)]
    for label in y.unique():
        index = (y == label).nonzero().flatten()
        index = index[torch.randperm(index.numel(), generator=generator)]
        gammas = torch._standard_gamma(torch.full((clients,), 0.5), generator=generator)
        cuts = (gammas.cumsum(0) / gammas.sum() * index.numel()).round().long()[:-1]
        for part, piece in zip(parts, index.tensor_split(cuts), strict=True):
            part.append(piece)
    return [torch.cat(part) for part in parts]


def digits_run(size: int, seed: int, rounds: int, steps: int, method: str = "kseed", **options: Any) -> dict[str, Any]:
    """One federated run: 20 clients, 5 a round, an MLP 64-64-10; returns accuracy, bytes and the replay's digests."""
    digits = data.load("digits")
    x, y = digits.x.float().reshape(len(digits.y), -1) / digits.x.max(), digits.y.long()
    train, test = digits.splits["train"], digits.splits["test"]
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    objective = Objective(module, nn.functional.cross_entropy)
    replica = Replica(objective)
    fields = {"local_steps": steps, "eps": 2.0**-10, "method": method, "key": derive(seed, "run"), **options}
    header = RunHeader.kseed(replica.theta0, SeedPool(derive(seed, "pool"), size), 1e-2, **fields)
    server = KSeedServer(header, clients_per_round=5)
    members = {}
    for number, index in enumerate(clients_of(y[train], 20, seed)):
        pieces = torch.as_tensor(train)[index].split(32)
        batches = [(x[piece], y[piece]) for piece in pieces if piece.numel()]
        members[f"client-{number:02d}"] = KSeedClient(replica, batches, header)
    traffic = [t for metrics in run(server, members, rounds).rounds for t in metrics.traffic.values()]
    replica.show(server.ledger)
    with torch.no_grad():
        accuracy = float((module(x[test]).argmax(1) == y[test]).double().mean())
    return {
        "accuracy": accuracy,
        "up": max(t.up for t in traffic),
        "bytes": max(t.up + t.down for t in traffic),
        "live": trees.digest(objective.params),
        "replayed": trees.digest(type(server.ledger).from_bytes(server.ledger.to_bytes()).materialize(replica.theta0)),
        "dense": 8 * trees.numel(objective.params),
    }


def mean(runs: list[dict[str, Any]]) -> float:
    """Mean accuracy of some runs."""
    return sum(result["accuracy"] for result in runs) / len(runs)


@paper("fedkseed", parts=["covector.federated.KSeedServer", "covector.federated.KSeedClient", "covector.SeedPool"])
def evidence(budget: Budget) -> Evidence:
    """Bytes, replay and accuracy of FedKSeed and FedKSeed-Pro on digits split unevenly over 20 clients."""
    rounds, steps = budget.choose(smoke=(6, 20), full=(40, 40))
    seeds = [budget.seed + i for i in range(budget.choose(smoke=1, full=3))]
    sizes = budget.choose(smoke=(128, 1024), full=(128, 1024, 4096))
    wire = digits_run(4096, budget.seed, 2, budget.choose(smoke=200, full=200), wire="faithful")
    by_size = {size: [digits_run(size, seed, rounds, steps) for seed in seeds] for size in sizes}
    pro = [digits_run(1024, seed, rounds, steps, "kseed-pro") for seed in seeds]
    exact = [digits_run(1024, seed, rounds, steps, wire="faithful") for seed in seeds]
    path = budget.path("accuracy-by-pool-size.svg")
    with figure(path, x="seeds in the pool K", y="test accuracy") as axes:
        axes.semilogx(list(sizes), [mean(by_size[size]) for size in sizes], "o-", label="FedKSeed, one byte a scalar")
        axes.semilogx([1024], [mean(pro)], "s", label="FedKSeed-Pro")
        axes.semilogx([1024], [mean(exact)], "^", label="FedKSeed, fp32 scalars")
        axes.legend(frameon=False)
    smallest, largest = mean(by_size[sizes[0]]), mean(by_size[sizes[-1]])
    note = f"{len(seeds)} seed(s), {rounds} rounds of {steps} steps, learning rate 1e-2 for all, not tuned"
    every = [wire, *pro, *exact, *(result for runs in by_size.values() for result in runs)]

    def decided(holds: bool) -> bool | None:
        return holds if budget.name == "full" else None  # a run of seconds has not learned enough to tell

    same = sum(result["live"] == result["replayed"] for result in every)
    findings = [
        Finding(
            "A client moves less than 18 KB in a round (K=4096, 200 steps)", REPORTED_BYTES, wire["bytes"],
            wire["dense"], "bytes", wire["bytes"] <= REPORTED_BYTES,
            "the largest message pair of a round, encoded, frames included; baseline: all parameters of this small "
            "model both ways, which grows with the model while the messages do not",
        ),
        Finding(
            "The model is its base and K accumulated scalars", "all", same, len(every), "runs with equal SHA-256",
            same == len(every),
            "the ledger through bytes and back, materialized on the base, against the live ones; baseline: runs in all",
        ),
        Finding(
            "More seeds in the pool reach a better model", "rises with K", largest, smallest, "test accuracy",
            decided(largest > smallest), f"K={sizes[-1]} against K={sizes[0]}; {note}",
        ),
        Finding(
            "Drawing seeds by their importance helps (Pro)", "better than uniform", mean(pro), mean(by_size[1024]),
            "test accuracy", decided(mean(pro) > mean(by_size[1024])), f"K=1024, both with one byte a scalar; {note}",
        ),
        Finding(
            "One byte a scalar costs no accuracy", "not in the paper", mean(by_size[1024]), mean(exact),
            "test accuracy", decided(mean(by_size[1024]) > mean(exact) - 0.03),
            f"against fp32 scalars, within 0.03; {note}",
        ),
    ]  # fmt: skip
    return Evidence("fedkseed", findings, [path])
