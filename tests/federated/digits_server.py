"""A server process for the kill tests: python digits_server.py JOURNAL METHOD ROUNDS.

Trains a small network on scikit-learn's digits with the embedded engine, starting or resuming from the journal,
and prints one line a round and the digest of the final parameters.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from covector import Backprop, Objective, SeedPool, SketchPool, ZerothOrder, trees
from covector.federated import KSeedClient, KSeedServer, Replica, RunHeader, SketchClient, SketchServer, run
from covector.gradients.journal import Journal


def shards(count):
    """Batches of each client: sorted by label, so that the clients' data differ."""
    digits = load_digits()
    order = torch.from_numpy(digits.target).argsort(stable=True)
    inputs = torch.from_numpy(digits.data).float()[order] / 16
    targets = torch.from_numpy(digits.target).long()[order]
    for part in range(count):
        mine = slice(part * 480, part * 480 + 480)
        yield list(zip(inputs[mine].split(32), targets[mine].split(32), strict=True))


def main(path, method, rounds):
    torch.manual_seed(0)
    objective = Objective(nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)), nn.functional.cross_entropy)
    replica = Replica(objective)
    pool = SketchPool(key=5, size=128)
    if method == "sketch":
        header = RunHeader.sketch(replica.theta0, pool, lr=3e-2, local_steps=4)
        estimators = (Backprop(carrier=pool), ZerothOrder(directions=pool), Backprop(carrier=pool))
        members = [SketchClient(replica, data, e) for data, e in zip(shards(3), estimators, strict=True)]
    else:
        header = RunHeader.kseed(replica.theta0, SeedPool(key=5, size=128), lr=3e-3, local_steps=6, method=method)
        members = [KSeedClient(replica, data) for data in shards(3)]
    with Journal(path) as journal:
        server = (SketchServer if method == "sketch" else KSeedServer)(header, journal)
        clients = {f"client-{i}": member for i, member in enumerate(members)}
        run(server, clients, rounds, callbacks=[lambda metrics: print("round", metrics.round, flush=True)])
    replica.show(server.ledger)
    print("digest", trees.digest(objective.params), server.ledger.digest(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
