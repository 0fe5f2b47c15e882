"""Split a flat range over a few threads. The kernels hold no lock of the interpreter while they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["split"]

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def split(work: Callable[[int, int], None], count: int, unit: int, cost: float) -> None:
    """Call ``work(begin, end)`` on pieces of ``range(count)``, one a thread.

    Args:
        work: takes a half-open range; the pieces may run at the same time.
        count: length of the whole range.
        unit: pieces begin at multiples of this.
        cost: estimated nanoseconds for the whole range on one thread; below ``100,000`` it is not split.
    """
    threads = torch.get_num_threads() if cost > 1e5 else 1
    piece = -(-count // threads)
    piece = -(-piece // unit) * unit
    starts = range(0, count, max(piece, 1))
    if len(starts) < 2:
        work(0, count)
        return
    pool = _shared_pool(threads - 1)
    others = [pool.submit(work, begin, min(begin + piece, count)) for begin in starts[1:]]
    work(0, piece)
    for other in others:
        other.result()


def _shared_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:
            _pool = ThreadPoolExecutor(size, thread_name_prefix="covector-kernels")
            _pool_size = size
        return _pool


def _forget_pool() -> None:
    """A forked child has the pool's memory but none of its threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
