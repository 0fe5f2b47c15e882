"""Keeper: ends Flower's processes when the run's process ends, however it ends.

It runs as a script with the standard library only. Every line on its standard input is the number of a process
group; when the input is closed, by the run or by its death, the groups are ended and the folder that is its argument,
where each client's examples lie, is deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

__all__ = ["end_groups"]


def end_groups(groups: list[int], grace: float = 5.0) -> None:
    """Ask process groups to end, and end those that are left after ``grace`` seconds.

    >>> end_groups([])
    """
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while groups and time.monotonic() < deadline:
        groups = _signal(groups, 0)
        time.sleep(0.1)
    _signal(groups, signal.SIGKILL)


def _signal(groups: list[int], how: int) -> list[int]:
    """The groups that could be signaled."""
    reached = []
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, how)
            reached.append(group)
    return reached


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_groups([int(line) for line in sys.stdin])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
