"""Time to import covector and to print the command's help, against importing torch.

    python benchmarks/import_time.py [--rounds 7] [--json FILE]

Fresh interpreters, interleaved, medians; the first round warms the file cache and is not counted. Processor time
(user and system) of the children is given beside the clock on the wall: a loaded machine stretches the latter.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TORCH, COVECTOR, HELP = "import torch", "import covector", "covector --help"
CASES = {
    TORCH: [sys.executable, "-c", "import torch"],
    COVECTOR: [sys.executable, "-c", "import covector"],
    HELP: [sys.executable, "-m", "covector.cli", "--help"],
}
IMPORT_GOAL, HELP_GOAL = 1.5, 1.0


def processor_time() -> float:
    """Seconds that all finished children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of each case."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, command in CASES.items():
            begin, used = time.perf_counter(), processor_time()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                times[name].append((time.perf_counter() - begin, processor_time() - used))
    return {
        name: (statistics.median(wall for wall, _ in values), statistics.median(used for _, used in values))
        for name, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.rounds)
    base = found[TORCH]
    print(f"medians of {options.rounds} fresh interpreters; the limit is importing torch")
    print(f"{'':18s}{'wall s':>8s}{'x torch':>9s}{'beyond':>9s}{'processor s':>13s}{'x torch':>9s}{'beyond':>9s}")
    for name, seconds in found.items():
        columns = [f"{s:.2f}{s / b:>9.2f}{s - b:>+9.2f}" for s, b in zip(seconds, base, strict=True)]
        print(f"{name:18s}{columns[0]:>26s}{columns[1]:>31s}")
    ratio, beyond = found[COVECTOR][0] / base[0], found[HELP][0] - base[0]
    print(f"import covector / import torch: {ratio:.2f}   goal < {IMPORT_GOAL:g}: {_met(ratio < IMPORT_GOAL)}")
    print(f"covector --help beyond import torch: {beyond:+.2f} s   goal < {HELP_GOAL:g} s: {_met(beyond < HELP_GOAL)}")
    if options.json:
        table = {name: {"wall": wall, "processor": used} for name, (wall, used) in found.items()}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _met(goal: bool) -> str:
    return "met" if goal else "missed"


if __name__ == "__main__":
    main()
