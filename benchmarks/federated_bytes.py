"""Bytes a client moves in a round, measured on the encoded messages.

    python benchmarks/federated_bytes.py [--json FILE]

A message's size does not depend on the model, so a small one is trained: what is measured holds for any. The last
two rows are arithmetic for SmolLM2-135M: all parameters, or rank-8 adapters on its linear layers, in fp32.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import nn

from covector import Backprop, Objective, SeedPool, SketchPool
from covector.federated import KSeedClient, KSeedServer, Replica, RunHeader, SketchClient, SketchServer, run

PARAMETERS = 134_515_008
HIDDEN, KEY_VALUE, INNER, LAYERS, RANK = 576, 192, 1536, 30, 8
CLIENTS, ROUNDS = 10, 4


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, 8, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(4)]


def measure(kind: str, clients: int, **options: Any) -> tuple[float, float]:
    """Bytes up and down per client in the last round, when every client has been there before."""
    torch.manual_seed(0)
    replica = Replica(Objective(nn.Linear(8, 1), nn.functional.mse_loss))
    if kind == "sketch":
        pool = SketchPool(1, 4096)
        header = RunHeader.sketch(replica.theta0, pool, 1e-3, **options)
        server: Any = SketchServer(header)
        members: Any = {f"{i}": SketchClient(replica, batches(i), Backprop(pool)) for i in range(clients)}
    else:
        size = options.pop("size", 4096)
        header = RunHeader.kseed(replica.theta0, SeedPool(1, size), 1e-5, local_steps=200, **options)
        server = KSeedServer(header)
        members = {f"{i}": KSeedClient(replica, batches(i)) for i in range(clients)}
    last = run(server, members, ROUNDS).rounds[-1].traffic.values()
    return sum(t.up for t in last) / clients, sum(t.down for t in last) / clients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    args = parser.parse_args()
    linear = LAYERS * (2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEY_VALUE) + 3 * (HIDDEN + INNER)) * RANK
    rows = {
        "FedKSeed, faithful wire, K=4096, tau=200": measure("kseed", CLIENTS, wire="faithful"),
        "FedKSeed, compact wire, K=4096, tau=200": measure("kseed", CLIENTS, wire="compact"),
        "FedKSeed-Pro, faithful wire, K=1024": measure("kseed", 5, wire="faithful", method="kseed-pro", size=1024),
        "sketch + backprop, N=4096, one byte": measure("sketch", 4),
        "sketch + backprop, N=4096, fp32 up, exact down": measure("sketch", 4, code="fp32", down="exact"),
        "LoRA rank 8, FedAvg, fp32 (arithmetic)": (4.0 * linear, 4.0 * linear),
        "all parameters, FedAvg, fp32 (arithmetic)": (4.0 * PARAMETERS, 4.0 * PARAMETERS),
    }
    everything = sum(rows["all parameters, FedAvg, fp32 (arithmetic)"])
    print(f"{'':<48}{'up':>14}{'down':>14}{'both':>15}{'all params / this':>19}")
    for name, (up, down) in rows.items():
        print(f"{name:<48}{up:>14,.0f}{down:>14,.0f}{up + down:>15,.0f}{everything / (up + down):>19,.0f}")
    print("limits: 17,988 B for the faithful wire, 2,500 B for the compact one (up and down together)")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
