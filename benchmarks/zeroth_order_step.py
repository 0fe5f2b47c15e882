"""Cost of a zeroth-order step on the 135M language model against two bare forward passes.

    python benchmarks/zeroth_order_step.py [--batch 8] [--tokens 128] [--rounds 5] [--json FILE]

Interleaved in one process, medians over rounds:

* ``two forwards``: the physical limit, two inference passes;
* ``rademacher`` / ``sketch``: a whole step of this library, two perturbed passes and the update;
* ``usual loop``: the published MeZO recipe (perturb in place +1, -2, +1 with ``torch.normal`` from a re-seeded
  generator, two passes, update), written here from its description.

Peak memory is measured in a process of its own for each case: what the step adds to a bare forward pass.
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


def own_peak() -> float:
    """Peak resident memory of this process in MB; getrusage would count what its parent had before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def peak_of(case: str, args: argparse.Namespace) -> float:
    """Peak resident memory in MB of a fresh process that runs one case twice."""
    command = [sys.executable, __file__, "--only", case, "--batch", str(args.batch), "--tokens", str(args.tokens)]
    command += ["--dtype", args.dtype, "--threads", str(args.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json")
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    objective, batch = load(args.batch, args.tokens, getattr(torch, args.dtype))
    if args.only:
        for number in range(2):
            step(args.only, objective, batch, number)
        print(own_peak())
        return
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for case in CASES:
        step(case, objective, batch, 0)
    for number in range(1, args.rounds + 1):
        for case in CASES:
            begin = time.perf_counter()
            step(case, objective, batch, number)
            times[case].append(time.perf_counter() - begin)
    bare = times["two forwards"]
    rows = []
    for case in CASES:
        ratio = statistics.median(t / b for t, b in zip(times[case], bare, strict=True))
        rows.append(
            {"case": case, "seconds": statistics.median(times[case]), "ratio": ratio, "peak_mb": peak_of(case, args)}
        )
    print(f"batch {args.batch} x {args.tokens}, {args.dtype}, {args.threads} threads, {args.rounds} rounds, medians")
    print(f"{'case':<14}{'seconds':>9}{'time / two forwards':>21}{'peak MB':>9}{'peak / forward':>16}")
    for row in rows:
        memory = row["peak_mb"] / rows[0]["peak_mb"]
        print(f"{row['case']:<14}{row['seconds']:>9.2f}{row['ratio']:>21.3f}{row['peak_mb']:>9.0f}{memory:>16.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"arguments": vars(args), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
