"""Bringing a model up to date from the state of a federated run: 4096 accumulated numbers and the base.

    python benchmarks/replay.py [--parameters 135000000] [--rounds 3] [--threads 1] [--json FILE]

Interleaved in one process, medians over rounds; with one thread processor time of that thread, which on a shared
machine does not count the others, else the clock on the wall. The peers:

* ``copy``: one pass over memory (read the base, write the parameters), for the sketch ledger;
* ``usual loop``: for every seed a generator is seeded again, and for every tensor ``torch.normal`` draws and ``add_``
  adds, as FedKSeed's published procedure says. It takes the same time for each seed: 8 are measured, and the time for
  4096 is EXTRAPOLATED from them.

Parameters are fp32, in tensors of the sizes of a small language model: an embedding and many matrices.
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

from covector import SeedPool, SketchPool, kernels
from covector.gradients import Ledger
from covector.trees import Params

K, LOOP_SEEDS = 4096, 8
EMBEDDING, MATRIX = 49_152 * 576, 1_536 * 576
COPY_GOAL, LOOP_GOAL = 3.0, 100.0


def shapes(parameters: int) -> list[int]:
    """Sizes of the tensors: an embedding of at most a quarter, matrices, and the rest."""
    sizes = [EMBEDDING] if parameters >= 4 * EMBEDDING else []
    count, rest = divmod(parameters - sum(sizes), MATRIX)
    return sizes + [MATRIX] * count + [rest] * (rest > 0)


def ledger_of(pool: SeedPool | SketchPool) -> Ledger:
    """A ledger all of whose coefficients are used."""
    ledger = Ledger(pool)
    drawn = torch.randint(1, 1 << 20, (pool.size,), generator=torch.Generator().manual_seed(1))
    ledger.add_coordinates_(torch.where(torch.arange(pool.size) % 2 == 0, drawn, -drawn))
    return ledger


def cases(parameters: int) -> dict[str, Callable[[], object]]:
    """What to call; the base is shared, the parameters are written by all."""
    sizes = shapes(parameters)
    theta0: Params = {f"layer.{i}.weight": torch.randn(size).mul_(0.02) for i, size in enumerate(sizes)}
    live: Params = {name: p.clone() for name, p in theta0.items()}
    generator = torch.Generator()
    sketch, seeds = ledger_of(SketchPool(1, K)), ledger_of(SeedPool(1, K))

    def copy() -> None:
        for name, p in live.items():
            p.copy_(theta0[name])

    def usual_loop() -> None:
        for seed in range(LOOP_SEEDS):
            generator.manual_seed(seed)
            for p in live.values():
                p.add_(torch.normal(0.0, 1.0, size=p.shape, generator=generator), alpha=1e-9)

    return {
        "copy": copy,
        "sketch ledger": lambda: sketch.materialize(theta0, out=live),
        "seed ledger": lambda: seeds.materialize(theta0, out=live),
        "usual loop": usual_loop,
    }


def measure(calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each call, every one once a round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = clock()
            call()
            times[name].append(clock() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=135_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    calls, n = cases(options.parameters), options.parameters
    calls["copy"]()
    calls["sketch ledger"]()  # compiles the kernel where it is not cached
    seconds = measure(calls, options.rounds, clock)
    loop = seconds["usual loop"] / LOOP_SEEDS * K
    to_copy, to_loop = seconds["sketch ledger"] / seconds["copy"], loop / seconds["seed ledger"]
    print(
        f"{platform.machine()}, torch {torch.__version__}, {options.threads} thread(s), {n:,} fp32 parameters, K=N={K}"
    )
    print(f"kernels: {kernels.backend(torch.zeros(1))}; medians of {options.rounds}, seconds")
    print(f"{'copy: the limit, one pass over memory':46s}{seconds['copy']:12.3f}")
    ours = f"{seconds['sketch ledger']:12.3f}   {to_copy:8.2f} x copy"
    print(f"{'sketch ledger, materialized':46s}{ours}   goal <= {COPY_GOAL:g}: {_met(to_copy <= COPY_GOAL)}")
    ours = f"{seconds['seed ledger']:12.3f}   {seconds['seed ledger'] / seconds['copy']:8.2f} x copy"
    print(f"{'seed ledger, 4096 Rademacher seeds, one pass':46s}{ours}")
    print(
        f"{f'usual loop, extrapolated from {LOOP_SEEDS} seeds':46s}{loop:12.3f}   {loop / seconds['copy']:8,.0f} x copy"
    )
    print(f"usual loop / seed ledger: {to_loop:,.0f}   goal >= {LOOP_GOAL:g}: {_met(to_loop >= LOOP_GOAL)}")
    print(f"usual loop / sketch ledger: {loop / seconds['sketch ledger']:,.0f}")
    if options.json:
        found = {**seconds, "usual loop, extrapolated to 4096 seeds": loop, "parameters": n, "threads": options.threads}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _met(goal: bool) -> str:
    return "met" if goal else "missed"


if __name__ == "__main__":
    main()
