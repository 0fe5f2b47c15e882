"""Cost of a zeroth-order step on the 135M language model against two bare forward passes.

    python benchmarks/zeroth_order_step.py [--batch 8] [--tokens 128] [--rounds 5] [--peaks 3] [--json FILE]

Interleaved in one process, medians over rounds:

* ``two forwards``: the physical limit, two inference passes;
* ``rademacher`` / ``sketch``: a whole step of this library, two perturbed passes and the update;
* ``usual loop``: the published MeZO recipe (perturb in place +1, -2, +1 with ``torch.normal`` from a re-seeded
  generator, two passes, update), written here from its description.

Peak memory is that of a process of its own, the median of ``--peaks`` of them. ``loaded kernels`` are two inference
passes beside the kernels, compiled and ready: what it needs beyond ``two forwards`` is the compiler's runtime, and
what a step needs beyond it is the step. Last, what a ledger adds to a process that holds the model: made, filled
with 4096 coefficients and materialized in place.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import covector
from covector import data

CASES = ("two forwards", "rademacher", "sketch", "usual loop")
LOADED = "loaded kernels"
LEDGERS = {"ledger of seeds": covector.SeedPool(key=1, size=4096), "ledger of a sketch": covector.SketchPool(key=1)}


def load(batch: int, tokens: int, dtype: torch.dtype) -> tuple[covector.Objective, dict[str, torch.Tensor]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(data.get("smollm2-135m-instruct"), dtype=dtype).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (batch, tokens), generator=generator)
    return covector.Objective(model), {"input_ids": ids, "labels": ids}


@torch.no_grad()
def usual_loop(objective: covector.Objective, batch: dict[str, torch.Tensor], seed: int, eps=1e-3, lr=1e-7) -> None:
    def perturb(scale: float) -> None:
        torch.manual_seed(seed)
        for p in objective.params.values():
            z = torch.normal(mean=0.0, std=1.0, size=p.shape, dtype=p.dtype, device=p.device)
            p.data = p.data + scale * z

    perturb(eps)
    plus = float(objective(batch))
    perturb(-2 * eps)
    minus = float(objective(batch))
    perturb(eps)
    perturb(-lr * (plus - minus) / (2 * eps))


def step(case: str, objective: covector.Objective, batch: dict[str, torch.Tensor], number: int) -> None:
    if case == "two forwards":
        with torch.no_grad():
            float(objective(batch))
            float(objective(batch))
    elif case == "usual loop":
        usual_loop(objective, batch, number)
    else:
        directions = "rademacher" if case == "rademacher" else covector.SketchPool(key=1)
        estimate = covector.ZerothOrder(directions=directions, seed=number)(objective, batch)
        estimate.gradient.add_to_(objective.params, -1e-7)


def load_kernels() -> None:
    """What both kinds of step call, on a few numbers."""
    few = {"few": torch.zeros(64)}
    covector.Seeded([1], [1.0]).add_to_(few)
    covector.Sketch(1, torch.ones(4096)).add_to_(few)


def memory(key: str) -> float:
    """A line of the kernel's account of this process, in MB; getrusage would count what its parent had before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def ledger_cost(case: str, objective: covector.Objective) -> float:
    """Peak resident memory in MB beyond what the process held before it made the ledger."""
    pool = LEDGERS[case]
    load_kernels()
    covector.Ledger(pool).materialize(objective.params, out=objective.params)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = memory("VmRSS")
    ledger = covector.Ledger(pool)
    ledger.add_coordinates_(torch.arange(1, 4097))
    ledger.materialize(objective.params, out=objective.params)
    return memory("VmHWM") - before


def measure(case: str, args: argparse.Namespace) -> float:
    """In a process of its own: the peak of one case run twice, or what a ledger adds."""
    objective, batch = load(args.batch, args.tokens, getattr(torch, args.dtype))
    if case in LEDGERS:
        return ledger_cost(case, objective)
    if case == LOADED:
        load_kernels()
    for number in range(2):
        step("two forwards" if case == LOADED else case, objective, batch, number)
    return memory("VmHWM")


def peak_of(case: str, args: argparse.Namespace) -> float:
    """The median of :func:`measure` over fresh processes."""
    command = [sys.executable, __file__, "--only", case, "--batch", str(args.batch), "--tokens", str(args.tokens)]
    command += ["--dtype", args.dtype, "--threads", str(args.threads)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(args.peaks)]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def seconds(args: argparse.Namespace) -> dict[str, list[float]]:
    """Times of every case, interleaved."""
    objective, batch = load(args.batch, args.tokens, getattr(torch, args.dtype))
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(args.rounds + 1):
        for case in CASES:
            begin = time.perf_counter()
            step(case, objective, batch, number)
            times[case].append(time.perf_counter() - begin)
    return {case: values[1:] for case, values in times.items()}


def print_times(args: argparse.Namespace) -> list[dict[str, object]]:
    times = seconds(args)
    print(f"{'case':<16}{'seconds':>9}{'time / two forwards':>21}")
    rows: list[dict[str, object]] = []
    for case, values in times.items():
        ratio = statistics.median(t / b for t, b in zip(values, times["two forwards"], strict=True))
        rows.append({"case": case, "seconds": statistics.median(values), "ratio": ratio})
        print(f"{case:<16}{statistics.median(values):>9.2f}{ratio:>21.3f}")
    return rows


def print_memory(args: argparse.Namespace) -> dict[str, float]:
    peaks = {case: peak_of(case, args) for case in (CASES[0], LOADED, *CASES[1:])}
    bare = peaks["two forwards"]
    print(f"{'case':<16}{'peak MB':>9}{'peak / forward':>16}{'runtime MB':>12}{'step MB':>9}")
    for case, peak in peaks.items():
        ours = case in ("rademacher", "sketch")
        runtime = f"{peaks[LOADED] - bare:.0f}" if ours or case == LOADED else ""
        own = f"{peak - peaks[LOADED]:.0f}" if ours else ""
        print(f"{case:<16}{peak:>9.0f}{peak / bare:>16.3f}{runtime:>12}{own:>9}")
    for case, pool in LEDGERS.items():
        peaks[case] = peak_of(case, args)
        ledger = covector.Ledger(pool)
        held = ledger.coefficients.nbytes + (pool.seeds.nbytes if isinstance(pool, covector.SeedPool) else 0)
        print(f"{case}: {held} bytes of state, {len(ledger.to_bytes())} encoded, {peaks[case]:.2f} MB at the peak")
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="0: memory only")
    parser.add_argument("--peaks", type=int, default=3, help="processes a peak; 0: time only")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json")
    parser.add_argument("--only", choices=(*CASES, LOADED, *LEDGERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        print(measure(args.only, args))
        return
    print(f"batch {args.batch} x {args.tokens}, {args.dtype}, {args.threads} threads, {args.rounds} rounds, medians")
    times = print_times(args) if args.rounds else []
    peaks = print_memory(args) if args.peaks else {}
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"arguments": vars(args), "times": times, "peaks": peaks}, file, indent=1)


if __name__ == "__main__":
    main()
