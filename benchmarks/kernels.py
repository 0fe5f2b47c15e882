"""Cost of the random-field kernels per element, beside what a user has today.

    python benchmarks/kernels.py [--elements 33554432] [--rounds 9] [--json FILE]

One thread, interleaved in one process, medians over rounds of the calling thread's processor time (not of the clock
on the wall, which on a shared machine also counts the others). The peers:

* ``add_``: ``p.add_(z)`` with z already in memory, for one Rademacher seed (fresh random numbers against stored ones);
* ``copy_``: one pass over memory, for the sketch both ways;
* ``usual loop``: for each seed re-seed a generator, ``torch.normal`` of the tensor, ``add_``; for K = 4096 seeds it is
  extrapolated from 8, as it takes the same time for each.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from covector import kernels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SEEDS, LOOP_SEEDS = 4096, 8
Cases = dict[str, tuple[Callable[[], object], float]]
Row = dict[str, str | float]


def one_pass(p: Tensor) -> Cases:
    """Kernels that read and write every element once: what to call, and the elements it counts for."""
    z, out, n = torch.randn_like(p), torch.empty_like(p), p.numel()
    seed, scale = torch.tensor([5]), torch.tensor([2.0**-20], dtype=torch.float64)
    table, totals = torch.randn(SEEDS) * 1e-3, torch.zeros(SEEDS, dtype=torch.float64)
    return {
        "add_": (lambda: p.add_(z, alpha=2.0**-20), n),
        "copy_": (lambda: out.copy_(p), n),
        "rademacher add": (lambda: kernels.add_field_(p, seed, scale, "rademacher", 1), n),
        "sketch": (lambda: kernels.materialize_sketch_(out, p, table, 5, 1, 0), n),
        "sketch in place": (lambda: kernels.materialize_sketch_(out, out, table, 5, 1, 0), n),
        "project": (lambda: kernels.project_sketch_(totals, p, 5, 1, 0), n),
    }


def many_seeds(p: Tensor) -> Cases:
    """Kernels that sum over seeds; a count is elements times seeds."""
    generator, n = torch.Generator(), p.numel()
    seeds = torch.arange(SEEDS) + (1 << 40)
    units, few = torch.randint(-1000, 1000, (SEEDS,)), 32
    scales = torch.full((LOOP_SEEDS,), 1e-6, dtype=torch.float64)

    def usual_loop() -> None:
        for seed in range(LOOP_SEEDS):
            generator.manual_seed(seed)
            p.add_(torch.normal(0.0, 1.0, size=(n,), generator=generator, dtype=p.dtype), alpha=1e-6)

    def exact(law: str, count: int) -> Callable[[], object]:
        return lambda: kernels.materialize_seeded_(p, p, seeds[:count], units[:count], law, 60, 1)

    return {
        "usual loop": (usual_loop, n * LOOP_SEEDS),
        f"rademacher K={SEEDS}": (exact("rademacher", SEEDS), n * SEEDS),
        f"binomial K={few}": (exact("binomial", few), n * few),
        f"normal K={LOOP_SEEDS}": (
            lambda: kernels.add_field_(p, seeds[:LOOP_SEEDS], scales, "normal", 1),
            n * LOOP_SEEDS,
        ),
    }


def measure(cases: Cases, rounds: int) -> dict[str, float]:
    """Median nanoseconds a count, each case once a round so that a disturbance meets all of them."""
    for call, _ in cases.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (call, count) in cases.items():
            begin = time.thread_time()
            call()
            times[name].append((time.thread_time() - begin) / count * 1e9)
    return {name: statistics.median(values) for name, values in times.items()}


def rows(dtype: str, elements: int, rounds: int) -> list[Row]:
    p = torch.randn(elements).mul_(0.02).to(DTYPES[dtype])
    times = measure(one_pass(p), rounds)
    # enough elements that the usual loop works from memory, few enough that 4096 seeds take a second
    many = measure(many_seeds(p[: min(elements, 1 << 22)].clone()), max(3, rounds // 3))
    peers = {name: "copy_" for name in times} | {"rademacher add": "add_"} | {name: "usual loop" for name in many}
    times |= many
    return [
        {"operation": name, "dtype": dtype, "ns": time_, "peer": peers[name], "peer / ours": times[peers[name]] / time_}
        for name, time_ in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1 << 25)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = [row for dtype in DTYPES for row in rows(dtype, options.elements, options.rounds)]
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, {options.elements:,} elements")
    print(f"{'operation':20s} {'dtype':10s} {'ns/element':>11s}   {'peer':12s} {'peer / ours':>11s}")
    for row in table:
        left = f"{row['operation']:20s} {row['dtype']:10s} {row['ns']:11.4f}"
        print(f"{left}   {row['peer']:12s} {row['peer / ours']:11.2f}")
    print(f"With K seeds: ns per element and seed. The usual loop is timed with {LOOP_SEEDS} seeds and extrapolated.")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
