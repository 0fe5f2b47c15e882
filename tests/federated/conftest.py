"""A small federation: a linear classifier, three clients whose data differ, any method and wire."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from covector import Backprop, Objective, SeedPool, SketchPool, ZerothOrder
from covector.federated import KSeedClient, KSeedServer, Replica, RunHeader, SketchClient, SketchServer


@dataclass
class Federation:
    """A run that has not begun."""

    header: RunHeader
    server: object
    clients: dict
    replica: Replica

    def resumed(self, journal, **options):
        return type(self.server).resume(journal, **options)


def objective_of(seed=0):
    torch.manual_seed(seed)
    return Objective(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), nn.functional.cross_entropy)


def data_of(client, batches):
    generator = torch.Generator().manual_seed(client)
    inputs = torch.randn(batches, 6, 5, generator=generator)
    targets = inputs[..., :3].argmax(-1)
    return list(zip(inputs, targets, strict=True))


def build(
    kind="compact", clients=3, steps=4, lr=0.05, pool=None, journal=None, estimators=None, server=None, **options
):
    """kind: faithful, compact, pro-faithful, pro-compact, kseed-sketch (a SketchPool) or sketch."""
    objective = objective_of()
    replica = Replica(objective)
    sketch = SketchPool(key=3, size=32)
    if kind == "sketch":
        header = RunHeader.sketch(replica.theta0, pool or sketch, lr, **{"local_steps": steps, "rounds": 8, **options})
    else:
        wire = "faithful" if kind.endswith("faithful") else "compact"
        method = "kseed-pro" if kind.startswith("pro") else "kseed"
        pool = pool or (sketch if kind == "kseed-sketch" else SeedPool(key=1, size=64))
        header = RunHeader.kseed(
            replica.theta0, pool, lr, wire, **{"method": method, "local_steps": steps, "rounds": 8, **options}
        )
    members = {}
    for i in range(clients):
        batches = data_of(i, i + 1)
        if kind == "sketch":
            mixed = Backprop(carrier=header.pool) if i % 2 == 0 else ZerothOrder(directions=header.pool, eps=2.0**-6)
            members[f"client-{i}"] = SketchClient(replica, batches, estimators[i] if estimators else mixed)
        else:
            members[f"client-{i}"] = KSeedClient(replica, batches)
    kinds = SketchServer if kind == "sketch" else KSeedServer
    return Federation(header, kinds(header, journal, **(server or {})), members, replica)


KINDS = ("faithful", "compact", "pro-faithful", "pro-compact", "kseed-sketch", "sketch")


@pytest.fixture
def federation():
    """The factory :func:`build`."""
    return build


@pytest.fixture(params=KINDS)
def kind(request):
    """Every method on every wire."""
    return request.param
