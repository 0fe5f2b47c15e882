"""Time to import covector and to print the command's help, against importing torch.

    python benchmarks/import_time.py [--rounds 7]

Fresh interpreters, interleaved, medians of wall time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "import torch": [sys.executable, "-c", "import torch"],
    "import covector": [sys.executable, "-c", "import covector"],
    "covector --help": [sys.executable, "-m", "covector.cli", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(args.rounds + 1):
        for name, command in CASES.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                times[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median["import torch"]
    for name, seconds in median.items():
        print(f"{name:<18}{seconds:>7.2f} s   {seconds / base:>5.2f} x import torch   {seconds - base:>+6.2f} s")


if __name__ == "__main__":
    main()
