"""A scheme over ``torch.distributed``: rank 0 serves, or all ranks meet in rounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from covector import trees
from covector.distributed.schemes import Collective, Replica, Scheme, Server, check_count, gradient
from covector.errors import CompositionError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["participate"]

_PULL, _PUSH, _DONE = 0, 1, 2


def participate(
    scheme: Scheme, objective: Objective, batches: Callable[[int, int], Batch], steps: int
) -> tuple[Params, list[float]]:
    """Take part in a run of the default process group; all ranks call it with the same scheme.

    All start from rank 0's parameters. With an asynchronous scheme rank 0 is the server and rank r is worker r - 1;
    what it ends with depends on who was first, but for one worker. With a synchronous scheme each rank is a worker, and
    every run gives the same bits: the sums are taken in the order of the ranks.

    Args:
        scheme: :class:`Downpour`, :class:`EASGD`, :class:`AdaptiveRevision` or :class:`LocalAveraging`.
        objective: as in every process; its own parameters are not changed.
        batches: ``batches(worker, step)``, as for :class:`AsyncSimulator`.
        steps: gradients of each worker.

    Returns:
        The shared parameters at the end, the same on each rank, and this worker's losses (the server has none).

    Raises:
        CompositionError: no process group, an asynchronous scheme without a worker, or Hogwild, which needs
            shared memory.

    >>> import torch.distributed as dist
    >>> from covector.distributed import LocalAveraging
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> objective = Objective.from_function(lambda p, batch: (p["x"] - 1).square().sum(), {"x": torch.zeros(1)})
    >>> scheme = LocalAveraging(lambda tensors: torch.optim.SGD(tensors, lr=0.5))
    >>> params, losses = participate(scheme, objective, lambda worker, step: None, steps=2)
    >>> losses, dist.destroy_process_group()
    ([1.0, 0.0], None)
    """
    if not dist.is_initialized():
        raise CompositionError("no process group: call torch.distributed.init_process_group, or covector's launch")
    check_count("steps", steps)
    if scheme.separate:
        raise CompositionError(f"{type(scheme).__name__} needs shared memory: use covector.distributed.hogwild")
    rank, size = dist.get_rank(), dist.get_world_size()
    start = {name: p.detach().clone() for name, p in objective.params.items()}
    _broadcast(start)
    if scheme.synchronous:
        return _meet(scheme.replica(start), objective, batches, steps)
    if size < 2:
        raise CompositionError(f"{type(scheme).__name__} needs a server and at least one worker: two processes")
    losses: list[float] = []
    shared = start
    if rank == 0:
        server = scheme.server(start)
        _serve(server, size - 1)
        shared = {name: p.detach() for name, p in server.params.items()}
    else:
        losses = _work(scheme.replica(start), scheme.server(start).read(), objective, batches, steps)
    _broadcast(shared)
    return shared, losses


def _meet(
    own: Collective, objective: Objective, batches: Callable[[int, int], Batch], steps: int
) -> tuple[Params, list[float]]:
    rank, size, losses = dist.get_rank(), dist.get_world_size(), []
    for step in range(steps):
        if own.due():
            mine = trees.flatten(own.contribution())
            everyone = [torch.empty_like(mine) for _ in range(size)]
            dist.all_gather(everyone, mine)
            # a reduction's order of summation is the library's; this one is the simulator's
            total = everyone[0]
            for other in everyone[1:]:
                total += other
            own.absorb(trees.unflatten(total, own.params), size)
        loss, found = gradient(objective, batches(rank, step), own.params)
        own.step(found)
        losses.append(loss)
    return own.center, losses


def _serve(server: Server, workers: int) -> None:
    like = server.read()
    while workers:
        header = torch.zeros(1, dtype=torch.int64)
        source = dist.recv(header)
        kind = int(header)
        if kind == _PULL:
            dist.send(trees.flatten(server.read()), source)
        elif kind == _PUSH:
            flat = torch.empty_like(trees.flatten(like))
            dist.recv(flat, source)
            server.apply(trees.unflatten(flat, like))
        else:
            workers -= 1


def _work(
    replica: Replica, like: Params, objective: Objective, batches: Callable[[int, int], Batch], steps: int
) -> list[float]:
    losses = []
    for step in range(steps):
        if replica.wants():
            flat = torch.empty_like(trees.flatten(like))
            dist.send(_header(_PULL), 0)
            dist.recv(flat, 0)
            replica.pull(trees.unflatten(flat, like))
        loss, found = gradient(objective, batches(dist.get_rank() - 1, step), replica.params)
        losses.append(loss)
        message = replica.step(found)
        if message is not None:
            dist.send(_header(_PUSH), 0)
            dist.send(trees.flatten({name: message[name] for name in like}), 0)
    dist.send(_header(_DONE), 0)
    return losses


def _header(kind: int) -> Tensor:
    return torch.tensor([kind], dtype=torch.int64)


def _broadcast(params: Params) -> None:
    flat = trees.flatten(params)
    dist.broadcast(flat, 0)
    trees.copy_(params, trees.unflatten(flat, params))
