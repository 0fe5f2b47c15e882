"""FedKSeed's claims that can be decided exactly: bytes of encoded messages, and what the integers add up to."""

from __future__ import annotations

import copy
import math
import random
import statistics
from dataclasses import dataclass

import torch

from covector import SeedPool, trees
from covector.estimators import loss_at
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.findings import Finding
from covector.federated import Commit, KSeedClient, KSeedServer, Replica, RunHeader
from covector.federated.commit import ids_of, units_of, weigh
from covector.federated.inprocess import run
from covector.gradients import Dense
from covector.trees import Params

__all__ = ["Bytes", "bytes_findings", "exact_findings", "measure_bytes"]

SIZE, TAU, PRO_SIZE = 4096, 200, 1024
PAPER, PAPER_PRO, COMPACT_GOAL = 17_988, 9_796, 2_500
EPS = 2.0**-10
LR = 3e-3


@dataclass(frozen=True)
class Bytes:
    """Bytes of one client in one round, mean over clients, both ways."""

    up: float
    down: float

    @property
    def both(self) -> float:
        return self.up + self.down


def federation(
    digits: Digits, header: RunHeader, replica: Replica, clients: int, seed: int
) -> tuple[KSeedServer, dict[str, KSeedClient]]:
    dealt = digits.clients(seed, clients, alpha=100.0)
    return KSeedServer(header), {name: KSeedClient(replica, own, header) for name, own in dealt.items()}


def measure_bytes(
    digits: Digits, wire: str, clients: int, rounds: int = 3, tau: int = TAU, hidden: int = 64, **options: object
) -> Bytes:
    """Bytes of the last of ``rounds`` rounds in which all clients took part."""
    size = SIZE if options.get("method") != "kseed-pro" else PRO_SIZE
    replica = Replica(classifier(0, hidden))
    header = RunHeader.kseed(replica.theta0, SeedPool(1, size), LR, wire, local_steps=tau, eps=EPS, **options)
    server, members = federation(digits, header, replica, clients, seed=0)
    traffic = run(server, members, rounds).rounds[-1].traffic.values()
    return Bytes(statistics.fmean(t.up for t in traffic), statistics.fmean(t.down for t in traffic))


def bytes_findings(digits: Digits, clients: int) -> tuple[list[Finding], dict[str, Bytes]]:
    """The claims on bytes, and the measurements for a figure."""
    model = len(Dense(classifier(0).params).to_bytes())
    measured = {
        "FedAvg": Bytes(model, model),
        "FedKSeed": measure_bytes(digits, "faithful", clients, rounds=2),
        "FedKSeed-Pro": measure_bytes(digits, "faithful", clients, rounds=2, method="kseed-pro"),
        "compact": measure_bytes(digits, "compact", clients),
    }
    faithful, pro, compact = (measured[name].both for name in ("FedKSeed", "FedKSeed-Pro", "compact"))
    large, small = (measure_bytes(digits, "faithful", 2, rounds=2, tau=20, hidden=hidden) for hidden in (64, 0))
    sizes = [trees.numel(classifier(0, hidden).params) for hidden in (64, 0)]
    how = f"length of the encoded messages, frames and checksums included, mean of {clients} clients, tau={TAU}"
    findings = [
        Finding(
            "A client and round takes less than 18 kB at K=4096", PAPER, faithful, measured["FedAvg"].both, "bytes",
            faithful <= PAPER,
            f"{how}; the paper counts 4 bytes for a seed's index, the message takes 2. Baseline: FedAvg of the same "
            f"network, whose bytes grow with it (1,076,120,064 for a language model of 134,515,008 parameters)",
        ),
        Finding(
            "FedKSeed-Pro takes less than 10 kB at K=1024", PAPER_PRO, pro, measured["FedAvg"].both, "bytes",
            pro <= PAPER_PRO, f"{how}, probabilities included",
        ),
        Finding(
            "The bytes do not depend on the size of the model", 0, abs(large.both - small.both), large.both,
            "bytes of difference", large.both == small.both,
            f"networks of {sizes[0]} and {sizes[1]} parameters, tau=20, the same clients and rounds",
        ),
        Finding(
            "The same steps fit in 2,500 bytes (a claim of this library)", PAPER, compact, faithful, "bytes",
            compact <= COMPACT_GOAL,
            f"{how}, {clients} of {clients} clients a round, third round (the first sends fp32); ids of the steps are "
            "derived instead of sent, scalars take a byte, and down goes what the client missed",
        ),
    ]  # fmt: skip
    return findings, measured


def exact_findings(digits: Digits, tau: int) -> list[Finding]:
    """What the server's parameters are: a sum of the clients' deltas to the bit, and plain MeZO for one client."""
    return [_sum_of_deltas(digits, tau), _is_mezo(digits, min(tau, 40))]


def _sum_of_deltas(digits: Digits, tau: int) -> Finding:
    replica = Replica(classifier(0))
    header = RunHeader.kseed(replica.theta0, SeedPool(1, SIZE), LR, "faithful", local_steps=tau, eps=EPS)
    server, members = federation(digits, header, replica, clients=3, seed=1)
    messages = server.open_round(list(members))
    for name, message in messages.items():
        server.receive(name, members[name].handle(message))
    commit = Commit.from_bytes(server.close_round(), header)
    served = server.ledger.materialize(replica.theta0)
    deltas = [_delta(header, commit, index, replica.theta0) for index in range(len(commit.entries))]
    random.shuffle(deltas)
    exact, usual = trees.zeros_like(replica.theta0), trees.clone(replica.theta0)
    for name, base in replica.theta0.items():
        total = torch.stack([delta[name] for delta in deltas]).sum(0)
        exact[name] = base + total.to(base.dtype) * 2.0**-header.quantum
        for delta in deltas:
            usual[name] += delta[name].to(base.dtype) * 2.0**-header.quantum
    return Finding(
        "The server's model is the base plus the sum of all clients' steps", "equal", _different(served, exact),
        _different(served, usual), "parameters that differ", trees.digest(served) == trees.digest(exact),
        f"three clients of {tau} steps, K={SIZE}; deltas are dense int64 sums in shuffled order, compared bit for bit. "
        "Baseline: the same deltas added one after the other in fp32",
    )  # fmt: skip


def _delta(header: RunHeader, commit: Commit, index: int, like: Params) -> dict[str, torch.Tensor]:
    """One client's weighted steps in ledger units, int64 for every parameter."""
    entry = commit.entries[index]
    assert entry.payload is not None
    total = {name: torch.zeros(p.shape, dtype=torch.int64) for name, p in like.items()}
    units = weigh(units_of(header, commit.settings, entry.payload), entry.weight)
    for identity, unit in zip(ids_of(header, commit.settings, entry.client, entry.payload), units, strict=True):
        for name, z in header.pool.direction(identity).dense(like).items():
            total[name] += z.to(torch.int64) * unit
    return total


def _different(a: Params, b: Params) -> int:
    return sum(int((a[name] != b[name]).sum()) for name in a)


def _is_mezo(digits: Digits, tau: int) -> Finding:
    """In float64, so that the two ways differ by the wire and not by the rounding of the losses."""
    objective = classifier(0, dtype=torch.float64)
    batch = (digits.train[0][:32].double(), digits.train[1][:32])
    replica, plain = Replica(objective), copy.deepcopy(objective)
    header = RunHeader.kseed(replica.theta0, SeedPool(1, SIZE), LR, "faithful", local_steps=tau, eps=EPS)
    server, client = KSeedServer(header), KSeedClient(replica, [batch], header)
    server.receive("only", client.handle(server.open_round(["only"])["only"]))
    commit = Commit.from_bytes(server.close_round(), header)
    payload = commit.entries[0].payload
    assert payload is not None
    for identity in ids_of(header, commit.settings, 0, payload):
        direction = header.pool.direction(identity)
        plus, minus = (loss_at(plain, batch, direction, sign * EPS) for sign in (1, -1))
        direction.add_to_(plain.params, -LR * (plus - minus) / (2 * EPS))
    served = server.ledger.materialize(replica.theta0)
    moved = math.dist(trees.flatten(served).tolist(), trees.flatten(replica.theta0).tolist())
    apart = math.dist(trees.flatten(served).tolist(), trees.flatten(plain.params).tolist())
    return Finding(
        "With one client it is MeZO", "equal", apart / moved, 1.0, "distance / distance from the base",
        apart < 1e-5 * moved,
        f"{tau} steps in float64 with the seeds of the run, against a loop that moves the parameters itself; what is "
        "left is the fp32 scalar on the wire and the ledger's unit of 2**-32",
    )  # fmt: skip
