"""Bytes that a client moves in a round, for every wire, measured on the encoded messages.

    python benchmarks/federated_bytes.py [--clients 10] [--json FILE]

A message's size does not depend on the model, so a small one is trained: what is measured holds for any. Each row is
the mean over clients of a round in which all of them had taken part before, frames and checksums included. The
limit is what is in the messages without any header: the numbers themselves at their width.

The FedAvg rows are arithmetic for SmolLM2-135M in fp32: all parameters, or rank-8 adapters on its linear layers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from covector import Backprop, Objective, SeedPool, SketchPool, ZerothOrder
from covector.federated import KSeedClient, KSeedServer, Replica, RunHeader, SketchClient, SketchServer, run
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader

K, PRO, N, TAU, ROUNDS, PEERS, SCALARS = 4096, 1024, 4096, 200, 4, 4, 8
PARAMETERS = 134_515_008
HIDDEN, KEY_VALUE, INNER, LAYERS, RANK = 576, 192, 1536, 30, 8
ADAPTERS = LAYERS * RANK * (2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEY_VALUE) + 3 * (HIDDEN + INNER))
GOALS = {f"FedKSeed, faithful, K={K}, tau={TAU}": 17_988, f"FedKSeed, compact, K={K}, tau={TAU}": 2_500}

Pair = tuple[float, float]


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, 8, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(4)]


def model() -> Replica:
    torch.manual_seed(0)
    return Replica(Objective(nn.Linear(8, 1), nn.functional.mse_loss))


def last_round(server: Any, members: dict[str, Any]) -> Pair:
    """Mean bytes up and down of a client in the last round."""
    traffic = run(server, members, ROUNDS).rounds[-1].traffic.values()
    return sum(t.up for t in traffic) / len(members), sum(t.down for t in traffic) / len(members)


def kseed(clients: int, size: int, wire: str, method: str = "kseed") -> Pair:
    replica = model()
    header = RunHeader.kseed(replica.theta0, SeedPool(1, size), 1e-5, wire, local_steps=TAU, method=method)
    return last_round(KSeedServer(header), {f"{i}": KSeedClient(replica, batches(i)) for i in range(clients)})


def sketch(clients: int, slopes: int = 0, **options: Any) -> Pair:
    """Averaged gradients in N numbers, by backpropagation, or as so many slopes of forward passes."""
    replica, pool = model(), SketchPool(1, N)
    header = RunHeader.sketch(replica.theta0, pool, 1e-3, **{"local_steps": max(slopes, 1), **options})
    estimator = ZerothOrder(directions=pool) if slopes else Backprop(pool)
    members = {f"{i}": SketchClient(replica, batches(i), estimator) for i in range(clients)}
    return last_round(SketchServer(header), members)


def swarm() -> Pair:
    """Bytes that a peer sends to, and receives from, all others in an iteration; no server."""
    header = SwarmHeader.of(model().theta0, SeedPool(1, K), 1e-3)
    founders = {SCALARS * i: SCALARS for i in range(PEERS)}
    peers = [Peer(header, origin, SCALARS, founders) for origin in founders]
    moved = 0
    for iteration in range(ROUNDS):
        for peer in peers:
            peer.contribute(torch.randn(SCALARS).tolist(), now=float(iteration))
        letters = [(peer, letter.data) for peer in peers for letter in peer.drain()]
        moved = 0
        for sender, data in letters:
            for peer in peers:
                if peer is not sender:
                    peer.receive(data, now=float(iteration))
                    moved += len(data)
    assert {peer.iteration for peer in peers} == {ROUNDS}
    return moved / PEERS, moved / PEERS


def rows(clients: int) -> list[tuple[str, Pair, float]]:
    """Name, bytes up and down, and the bytes that the numbers alone take, both ways together."""
    few = 4
    return [
        (f"FedKSeed, faithful, K={K}, tau={TAU}", kseed(clients, K, "faithful"), 4 * K + 6 * TAU),
        (f"FedKSeed, compact, K={K}, tau={TAU}", kseed(clients, K, "compact"), TAU + clients * TAU),
        (f"FedKSeed-Pro, faithful, K={PRO}", kseed(few, PRO, "faithful", "kseed-pro"), 8 * PRO + 6 * TAU),
        (f"FedKSeed-Pro, compact, K={PRO}", kseed(few, PRO, "compact", "kseed-pro"), PRO + TAU + few * TAU),
        (f"sketch, backprop, N={N}, one byte", sketch(few), 2 * N),
        (f"sketch, backprop, N={N}, bf16 up", sketch(few, code="bf16"), 3 * N),
        (f"sketch, backprop, N={N}, fp32 up", sketch(few, code="fp32"), 5 * N),
        (f"sketch, backprop, N={N}, fp32 up, exact down", sketch(few, code="fp32", down="exact"), 7 * N),
        (f"sketch, {TAU} slopes, N={N}, one byte", sketch(few, slopes=TAU), TAU + N),
        (f"swarm, {PEERS} peers of {SCALARS} scalars", swarm(), 2 * (PEERS - 1) * SCALARS),
        ("FedAvg, LoRA rank 8, fp32 (arithmetic)", (4.0 * ADAPTERS, 4.0 * ADAPTERS), 8.0 * ADAPTERS),
        ("FedAvg, all parameters, fp32 (arithmetic)", (4.0 * PARAMETERS, 4.0 * PARAMETERS), 8.0 * PARAMETERS),
    ]


def times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 1 else f"{ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10, help="clients of the FedKSeed rows; 4 in the others")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(options.clients)
    everything, adapters = sum(found[-1][1]), sum(found[-2][1])
    print(f"Bytes of a client and round, SmolLM2-135M; FedKSeed: {options.clients} clients, all of them a round")
    print(f"{'':43s}{'up':>12s}{'down':>12s}{'both':>14s}{'/ limit':>9s}{'LoRA / it':>11s}{'all / it':>12s}  goal")
    for name, (up, down), limit in found:
        both = up + down
        goal = f"<= {GOALS[name]:,}: {'met' if both <= GOALS[name] else 'missed'}" if name in GOALS else ""
        ratios = f"{both / limit:9.2f}{times(adapters / both):>11s}{everything / both:12,.0f}"
        print(f"{name:43s}{up:12,.0f}{down:12,.0f}{both:14,.0f}{ratios}  {goal}".rstrip())
    if options.json:
        table = [{"wire": name, "up": up, "down": down, "limit": limit} for name, (up, down), limit in found]
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
