"""Time of the matrix functions beside what a user has today, as ratios.

    python benchmarks/matrix_functions.py [--rounds 11] [--json FILE]

One thread, float32 unless said, each case once a round in turns, medians of the calling thread's processor time. The
peers: ``U V^T`` from ``torch.linalg.svd``; the orthogonalization inside ``torch.optim.Muon`` (bfloat16, one matrix at a
time); roots from ``torch.linalg.eigh``, with their derivative by autograd.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from _interleaved import Cases, measure
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from covector.linalg import fast_dtype, inv_root, msign, orthonormalize, sqrtm

Row = dict[str, str | float]


def muon(batch: Tensor) -> list[Tensor]:
    """What torch.optim.Muon does with the gradients of a step."""
    return [_zeropower_via_newtonschulz(one, (3.4445, -4.7750, 2.0315), 5, 1e-7) for one in batch]


def by_svd(batch: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(batch, full_matrices=False)
    return u @ vh


def by_eigh(batch: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(batch)
    return vectors * values.clamp_min(1e-12).pow(power).unsqueeze(-2) @ vectors.mT


def polar(batch: Tensor) -> tuple[Cases, str]:
    half = fast_dtype("cpu")
    return {
        "svd": lambda: by_svd(batch),
        "torch.optim.Muon": lambda: muon(batch),
        "msign auto": lambda: msign(batch),
        "msign newton-schulz": lambda: msign(batch, "newton-schulz"),
        f"msign newton-schulz, {str(half).removeprefix('torch.')}": lambda: msign(batch, "newton-schulz", dtype=half),
        "msign polar-express": lambda: msign(batch, "polar-express"),
        "msign eigh": lambda: msign(batch, "eigh"),
    }, "svd"


def inverse(batch: Tensor) -> tuple[Cases, str]:
    return {
        "eigh": lambda: by_eigh(batch, -0.25),
        "inv_root eigh": lambda: inv_root(batch, 4, "eigh"),
        "inv_root newton": lambda: inv_root(batch, 4, "newton"),
    }, "eigh"


def root(batch: Tensor) -> tuple[Cases, str]:
    methods = ("eigh", "mpa", "mtp", "newton-schulz")
    return {"eigh": lambda: by_eigh(batch, 0.5)} | {
        f"sqrtm {method}": lambda method=method: sqrtm(batch, method)  # type: ignore[misc]
        for method in methods
    }, "eigh"


def root_and_gradient(batch: Tensor) -> tuple[Cases, str]:
    leaf = batch.clone().requires_grad_()

    def gradient(function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(leaf).square().sum(), leaf)

    cases = {"eigh": gradient(lambda a: by_eigh(a, 0.5)), "sqrtm eigh": gradient(sqrtm)}
    return cases | {
        "sqrtm mpa": gradient(lambda a: sqrtm(a, "mpa")),
        "sqrtm mtp": gradient(lambda a: sqrtm(a, "mtp")),
    }, "eigh"


def basis(batch: Tensor) -> tuple[Cases, str]:
    return {
        "qr": lambda: torch.linalg.qr(batch)[0],
        "orthonormalize qr": lambda: orthonormalize(batch, "qr"),
        "orthonormalize cholesky": lambda: orthonormalize(batch, "cholesky"),
    }, "qr"


def positive(count: int, size: int) -> Tensor:
    x = torch.randn(count, size, 2 * size)
    return x @ x.mT / (2 * size)


PLAN: list[tuple[str, Callable[[Tensor], tuple[Cases, str]], list[tuple[int, int, int]]]] = [
    ("polar factor", polar, [(64, 32, 32), (16, 64, 256), (4, 128, 512), (1, 256, 256), (1, 512, 512), (1, 256, 1024)]),
    ("inverse 4th root", inverse, [(64, 32, 32), (8, 128, 128), (1, 512, 512)]),
    ("square root", root, [(64, 32, 32), (8, 128, 128), (1, 256, 256)]),
    ("square root and gradient", root_and_gradient, [(64, 32, 32), (8, 128, 128), (1, 256, 256)]),
    ("basis", basis, [(16, 256, 16), (1, 1024, 64), (1, 1024, 256)]),
]


def rows(rounds: int) -> list[Row]:
    table: list[Row] = []
    for operation, build, shapes in PLAN:
        for count, m, n in shapes:
            general = build in (polar, basis)
            cases, peer = build(torch.randn(count, m, n) if general else positive(count, m))
            times = measure(cases, rounds)
            shape = f"{count} x {m} x {n}"
            table += [
                {"operation": operation, "shape": shape, "method": name, "ms": ms, "peer / ours": times[peer] / ms}
                for name, ms in times.items()
            ]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = rows(options.rounds)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; the first line of each group is the peer")
    last = ""
    for row in table:
        title = f"{row['operation']}, {row['shape']}"
        if title != last:
            print(f"\n{title:48s} {'ms':>9s} {'peer / ours':>12s}")
            last = title
        print(f"  {row['method']:46s} {row['ms']:9.3f} {row['peer / ours']:12.2f}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
