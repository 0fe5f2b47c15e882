"""What one of several processes does: steps every exported optimizer on its share of each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from covector.optim import SGD, Adam, AdamW, Box, ClipNorm, GradientNoise, Lookahead, Muon, Optimizer
from covector.optim.sharded import local, whole
from covector.trees import digest


def digests() -> dict[str, str]:
    """The digest of the parameters after two steps, for each optimizer."""
    from test_frameworks import CLASSES, batches, network  # found where a new process looks, not by pytest

    rank, size = dist.get_rank(), dist.get_world_size()
    found = {}
    for name, make in CLASSES.items():
        model = nn.parallel.DistributedDataParallel(network())
        optimizer = make(model.parameters())
        for x, y in batches()[:2]:
            share = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[share]), y[share]).backward()
            optimizer.step()
        found[name] = digest(dict(model.module.named_parameters()))
    return found


def sharded() -> dict[str, float]:
    """The largest difference that sharding makes to the parameters after three steps, for each optimizer."""
    from test_frameworks import BY_CLOSURE, EXPORTED  # found where a new process looks, not by pytest

    # those that step by more than a gradient evaluate the loss elsewhere, which sharded parameters do not allow
    makes = {name: make for name, make in EXPORTED.items() if name not in BY_CLOSURE} | {
        "clipped AdamW": lambda p: AdamW(p, transforms=[ClipNorm(0.01)], decoupled=False, weight_decay=0.1),
        "noisy AdamW": lambda p: AdamW(p, transforms=[GradientNoise()]),
        "bounded SGD": lambda p: SGD(p, constraint=Box(-0.2, 0.2)),
        "foreach Adam": lambda p: Adam(p, lr=torch.tensor(1e-3), capturable=True),
        "AdamW as a value": lambda p: Lookahead(AdamW(p), k=2),
    }
    return {name: float((steps(make, True) - steps(make, False)).abs().max()) for name, make in makes.items()}


def steps(make: Callable[[list[nn.Parameter]], Any], shard: bool) -> Tensor:
    """The parameters after three steps, the state saved and loaded after the second."""
    from test_frameworks import batches, network  # found where a new process looks, not by pytest

    model = network()
    if shard:
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = make(list(model.parameters()))
    for t, (x, y) in enumerate(batches()[:3]):
        if t == 2:
            saved, optimizer = optimizer.state_dict(), make(list(model.parameters()))
            optimizer.load_state_dict(saved)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step(**({"loss": loss.detach()} if isinstance(optimizer, Optimizer) else {}))
    return torch.cat([whole(p.detach()).flatten() for p in model.parameters()])


def shares() -> dict[str, list[int]]:
    """How many numbers of the first layer's state this process holds, by optimizer."""
    from test_frameworks import batches, network  # found where a new process looks, not by pytest

    found = {}
    for name, make in {"AdamW": AdamW, "Muon": Muon}.items():
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        optimizer = make(model.parameters())
        nn.functional.mse_loss(model(batches()[0][0]), batches()[0][1]).backward()
        optimizer.step()
        state = optimizer.state[model[0].weight]
        found[name] = [local(value).numel() for value in state.values() if isinstance(value, Tensor)]
    return found
