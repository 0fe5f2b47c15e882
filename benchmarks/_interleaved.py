"""Times of several cases in one run, in turns, so that a disturbance meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Cases = dict[str, Callable[[], object]]


def measure(cases: Cases, rounds: int) -> dict[str, float]:
    """Median milliseconds, each case once a round so that a disturbance meets all of them."""
    for call in cases.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            begin = time.thread_time()
            call()
            times[name].append((time.thread_time() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}
