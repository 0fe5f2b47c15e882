"""launch: a function in several processes that form a group, and what each of them returned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from covector.distributed.schemes import check_count
from covector.training.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["launch"]


def launch(function: Callable[..., Any], processes: int, *arguments: Any, timeout: float = 300.0) -> list[Any]:
    """Call ``function(*arguments)`` in new processes of one machine, joined in a gloo group.

    Args:
        function: defined at the top of a module, so that a new process finds it; in it ``torch.distributed`` is ready.
            It returns tensors, numbers, texts, and lists, tuples and dictionaries of them.
        processes: how many.
        arguments: for each of them the same.
        timeout: seconds a process waits for another before it gives up.

    Returns:
        What each process returned, in the order of the ranks.

    Raises:
        ProcessRaisedException: a process raised; the others are ended.

    A script needs ``if __name__ == "__main__":`` around the call, as always where processes are started.
    """
    check_count("processes", processes)
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_member, (function, arguments, processes, folder, timeout), processes, start_method="spawn")
        return [read_checkpoint(Path(folder) / str(rank))["returned"] for rank in range(processes)]


def _member(
    rank: int, function: Callable[..., Any], arguments: tuple[Any, ...], size: int, folder: str, timeout: float
) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{Path(folder).as_posix()}/store"
    limit = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=limit)
    try:
        write_checkpoint(Path(folder) / str(rank), {"returned": function(*arguments)})
        dist.barrier()
    finally:
        dist.destroy_process_group()
