"""Hogwild with processes: parameters in shared memory, written by all without a lock."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.multiprocessing.spawn import start_processes

from covector.distributed.schemes import MakeOptimizer, check_count, gradient
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["hogwild"]


def hogwild(
    build: Callable[[], Objective],
    batches: Callable[[int, int], Batch],
    optimizer: MakeOptimizer,
    workers: int,
    steps: int,
) -> Params:
    """Let processes step the same parameters, each as if it were alone.

    Which updates a gradient has seen, and whether two updates of one number both count, is up to the machine: no two
    runs are the same. It works where gradients are sparse, or steps small. One worker is plain training.

    Args:
        build: makes the objective, in each process; the first one's parameters are the start. It, ``batches`` and
            ``optimizer`` are defined at the top of a module, or are ``functools.partial`` of what is.
        batches: ``batches(worker, step)``.
        optimizer: makes each process's optimizer from the shared parameters; state other than theirs is not shared.
        workers: processes.
        steps: gradients of each.

    Returns:
        The parameters.

    Raises:
        ArgumentError: ``workers`` or ``steps`` below 1.
        ProcessRaisedException: a process raised; the others are ended.
    """
    check_count("workers", workers)
    check_count("steps", steps)
    shared = {name: p.detach().clone().share_memory_() for name, p in build().params.items()}
    start_processes(_worker, (shared, build, batches, optimizer, steps), workers, start_method="spawn")
    return shared


def _worker(
    worker: int,
    shared: Params,
    build: Callable[[], Objective],
    batches: Callable[[int, int], Batch],
    make: MakeOptimizer,
    steps: int,
) -> None:
    torch.set_num_threads(1)
    objective = build()
    live = {name: p.requires_grad_() for name, p in shared.items()}
    optimizer = make(list(live.values()))
    for step in range(steps):
        _, found = gradient(objective, batches(worker, step), live)
        for name, p in live.items():
            p.grad = found[name]
        optimizer.step()
