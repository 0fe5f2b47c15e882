"""Time of curvature products, eigenvalues, Gram spectra and densities, in gradients and beside other packages'.

    python benchmarks/curvature.py [products] [eigenvalues] [gram] [density] [--rounds 9] [--json FILE]

One thread, float32, contenders interleaved in one process, medians of the process's own processor time. The peers are
curvlinops-for-pytorch, hessian-eigenthings, pyhessian and backpack-for-pytorch, as far as they are installed; one that
fails says why and is left out. Attention runs under the MATH kernel for all: with the fused ones the peers fail.

* products: one product with a random vector, the graphs of those that keep them built before; read "x gradient".
* eigenvalues: the ten largest of the Hessian, beside those in float64 with a tolerance of 1e-9.
* gram: all eigenvalues of the Gauss-Newton matrix through the Gram matrix, beside the Jacobian by torch.func.
* density: of the Hessian, by Lanczos quadrature with as many probes and steps; "error" is the distance (L1) to the
  smoothed density of the exact spectrum, mean over seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from covector.curvature import GaussNewton, Hessian, gram
from covector.linalg import eigsh, slq
from covector.objective import Objective

Calls = dict[str, Callable[[], Any]]
Batch = tuple[Tensor, Tensor]
GOALS = {"MLP": 1.1, "CNN": 2.0, "transformer": 1.6}  # gradients a Gauss-Newton product
PARTS = ("products", "eigenvalues", "gram", "density")


class Transformer(nn.Module):
    """Pre-norm blocks of width 128 over 64 tokens; the scores of the classes in the second dimension."""

    def __init__(self, width: int = 128, layers: int = 2, tokens: int = 256, length: int = 64) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                (
                    nn.LayerNorm(width),
                    nn.Linear(width, 3 * width),
                    nn.Linear(width, width),
                    nn.LayerNorm(width),
                    nn.Linear(width, 4 * width),
                    nn.Linear(4 * width, width),
                )
            )
            for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids) + self.place
        for first, mix, out, second, up, down in self.blocks:  # type: ignore[misc]
            q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in mix(first(h)).chunk(3, -1))
            h = h + out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            h = h + down(F.gelu(up(second(h))))
        return self.head(self.norm(h)).transpose(1, 2)


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers = [part for m, n in pairwise(widths) for part in (nn.Linear(m, n), activation())]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10),
    )  # fmt: skip


def problems() -> dict[str, tuple[nn.Module, Batch]]:
    torch.manual_seed(0)
    return {
        "MLP 64-128-64-10, 300": (mlp(64, 128, 64, 10), (torch.randn(300, 64), torch.randint(0, 10, (300,)))),
        "MLP 784-512-512-10, 128": (
            mlp(784, 512, 512, 10, activation=nn.ReLU),
            (torch.randn(128, 784), torch.randint(0, 10, (128,))),
        ),
        "CNN 32-64-64, 16 x 32^2": (cnn(), (torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,)))),
        "transformer 128 x 2, 2 x 64": (
            Transformer(),
            (torch.randint(0, 256, (2, 64)), torch.randint(0, 256, (2, 64))),
        ),
    }


def medians(calls: Calls, rounds: int) -> dict[str, float]:
    """Median milliseconds, each contender once a round so that a disturbance meets all of them."""
    ready: Calls = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # a peer's failure is its result
            print(f"    {name} left out: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        ready[name] = call
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, call in ready.items():
            call()  # what the one before left in the caches is no part of it
            begin = time.process_time()
            call()
            times[name].append((time.process_time() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def peers(module: nn.Module, batch: Batch) -> dict[str, dict[str, Callable[[Tensor], Any]]]:
    """Products with a flat vector in other packages: of the Hessian ("H") and of the Gauss-Newton matrix ("GGN")."""
    found: dict[str, dict[str, Callable[[Tensor], Any]]] = {"H": {}, "GGN": {}}
    params = [p for p in module.parameters() if p.requires_grad]
    pieces = lambda v: [part.view_as(p) for part, p in zip(v.split([p.numel() for p in params]), params, strict=True)]  # noqa: E731
    try:
        import curvlinops

        options = {"check_deterministic": False}
        for kind, name in (("H", "HessianLinearOperator"), ("GGN", "GGNLinearOperator")):
            op = getattr(curvlinops, name)(module, nn.CrossEntropyLoss(), params, [batch], **options)
            found[kind]["curvlinops"] = lambda v, op=op: op @ v  # type: ignore[misc]
    except Exception as error:
        print(f"    curvlinops left out: {error!r}"[:140])
    try:
        import hessian_eigenthings as he

        hessian = he.HessianOperator(module, [batch], he.supervised_loss(F.cross_entropy))
        found["H"]["hessian-eigenthings"] = hessian.matvec
        ggn = he.GGNOperator(module, [batch], he.supervised_forward, he.supervised_loss_of_output(F.cross_entropy))
        found["GGN"]["hessian-eigenthings"] = ggn.matvec
    except Exception as error:
        print(f"    hessian-eigenthings left out: {error!r}"[:140])
    try:
        from pyhessian.hessian import hessian as pyhessian
        from pyhessian.utils import hessian_vector_product

        own = pyhessian(copy.deepcopy(module), nn.CrossEntropyLoss(), data=batch, cuda=False)
        found["H"]["pyhessian"] = lambda v: hessian_vector_product(own.gradsH, own.params, pieces(v))
    except Exception as error:
        print(f"    pyhessian left out: {error!r}"[:140])
    try:
        from backpack.hessianfree.ggnvp import ggn_vector_product
        from backpack.hessianfree.hvp import hessian_vector_product as backpack_hvp

        def by_backpack(v: Tensor) -> Any:
            return backpack_hvp(F.cross_entropy(module(batch[0]), batch[1]), params, pieces(v))

        def ggn_by_backpack(v: Tensor) -> Any:
            z = module(batch[0])
            return ggn_vector_product(F.cross_entropy(z, batch[1]), z, module, pieces(v))

        found["H"]["backpack"], found["GGN"]["backpack"] = by_backpack, ggn_by_backpack
    except Exception as error:
        print(f"    backpack left out: {error!r}"[:140])
    return found


def products(rounds: int) -> list[dict[str, Any]]:
    return [row for title, (module, batch) in problems().items() for row in _products(title, module, batch, rounds)]


def _products(title: str, module: nn.Module, batch: Batch, rounds: int) -> list[dict[str, Any]]:
    objective, table = Objective(module, F.cross_entropy), []
    params = list(objective.params.values())
    own = {"H": Hessian(objective, batch), "GGN": GaussNewton(objective, batch)}
    vector = torch.randn(own["H"].shape[0])
    calls: Calls = {"gradient": lambda: torch.autograd.grad(F.cross_entropy(module(batch[0]), batch[1]), params)}
    for kind, others in peers(module, batch).items():
        calls[f"{kind} covector"] = partial(own[kind].__matmul__, vector)
        calls |= {f"{kind} {name}": partial(product, vector) for name, product in others.items()}
    times = medians(calls, rounds)
    unit = times.pop("gradient")
    print(f"\n{title} ({own['H'].backend}; gradient {unit:.2f} ms)")
    for name, ms in times.items():
        ratio = times[f"{name.split()[0]} covector"] / ms
        goal = f"   goal <= {GOALS[title.split()[0]]}" if name == "GGN covector" else ""
        print(f"  {name:26s} {ms:9.2f} ms {ms / unit:6.2f} x gradient   ours / it {ratio:5.2f}{goal}")
        table.append({"part": "products", "case": title, "what": name, "ms": ms, "gradients": ms / unit})
    return table


def eigenvalues(rounds: int) -> list[dict[str, Any]]:
    module, batch = problems()["MLP 64-128-64-10, 300"]
    exact = copy.deepcopy(module).double()
    truth = eigsh(Hessian(Objective(exact, F.cross_entropy), (batch[0].double(), batch[1])), 10, tol=1e-9).values
    truth = truth.sort(descending=True).values
    objective = Objective(module, F.cross_entropy)
    found: dict[str, Tensor] = {}

    def keep(name: str, values: Any) -> None:
        found[name] = torch.as_tensor(values).detach().double().flatten().sort(descending=True).values[:10]

    calls: Calls = {
        "covector": lambda: keep("covector", eigsh(Hessian(objective, batch), 10, tol=3e-4).values),
        "curvlinops + ARPACK": lambda: keep("curvlinops + ARPACK", _arpack(module, batch)),
        "hessian-eigenthings, 60 steps": lambda: keep("hessian-eigenthings, 60 steps", _eigenthings(module, batch, 60)),
        "hessian-eigenthings, 100": lambda: keep("hessian-eigenthings, 100", _eigenthings(module, batch, 100)),
        "hessian-eigenthings, default": lambda: keep("hessian-eigenthings, default", _eigenthings(module, batch, None)),
        "pyhessian": lambda: keep("pyhessian", _pyhessian(module, batch)),
    }
    times = medians(calls, max(3, rounds // 2))
    print("\nten largest eigenvalues of the Hessian, MLP 64-128-64-10 (17 226 parameters), 300 examples")
    table = []
    for name, ms in times.items():
        error = float(((found[name] - truth) / truth).abs().max())
        print(
            f"  {name:30s} {ms:9.1f} ms   ours / it {times['covector'] / ms:5.2f}   largest relative error {error:.1e}"
        )
        table.append({"part": "eigenvalues", "what": name, "ms": ms, "error": error})
    return table


def _arpack(module: nn.Module, batch: Batch) -> Any:
    import curvlinops
    from scipy.sparse.linalg import eigsh as arpack

    op = curvlinops.HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), [batch], check_deterministic=False
    )
    return arpack(op.to_scipy(), k=10, which="LA", tol=1e-4, return_eigenvectors=False).copy()


def _eigenthings(module: nn.Module, batch: Batch, steps: int | None) -> Any:
    import hessian_eigenthings as he

    op = he.HessianOperator(module, [batch], he.supervised_loss(F.cross_entropy))
    return he.lanczos(op, k=10, max_iter=steps, which="LA", seed=0, reorthogonalize=True).eigenvalues


def _pyhessian(module: nn.Module, batch: Batch) -> Any:
    from pyhessian.hessian import hessian as pyhessian

    own = pyhessian(copy.deepcopy(module), nn.CrossEntropyLoss(), data=batch, cuda=False)
    return own.eigenvalues(maxIter=300, tol=1e-4, top_n=10)[0]


def gram_spectrum(rounds: int) -> list[dict[str, Any]]:
    module, (x, y) = problems()["MLP 64-128-64-10, 300"]
    objective = Objective(module, F.cross_entropy)
    live = {name: p.detach() for name, p in module.named_parameters()}

    def one(params: dict[str, Tensor], example: Tensor) -> Tensor:
        return torch.func.functional_call(module, params, (example[None],))[0]

    def naive() -> Tensor:
        parts = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(live, x)
        jacobian = torch.cat([part.flatten(2) for part in parts.values()], 2)
        p = module(x).detach().softmax(1)
        roots = (torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]) / len(x) ** 0.5
        scaled = (roots.mT @ jacobian).flatten(0, 1)
        return scaled @ scaled.T

    matrix: dict[str, Tensor] = {}
    keep: Callable[[str, Tensor], None] = matrix.__setitem__
    calls: Calls = {
        "covector.gram": lambda: keep("ours", gram(objective, (x, y), "gauss_newton")),
        "Jacobian, product": lambda: keep("naive", naive()),
    }
    times = medians(calls, max(3, rounds // 2))
    begin = time.process_time()
    ours = torch.linalg.eigvalsh(matrix["ours"])
    values = (time.process_time() - begin) * 1e3
    begin = time.process_time()
    naive_values, _ = torch.linalg.eigh(matrix["naive"])
    both = (time.process_time() - begin) * 1e3
    error = float((ours - naive_values[-len(ours) :]).abs().max() / naive_values.max())
    mine, theirs = times["covector.gram"], times["Jacobian, product"]
    print("\nall eigenvalues of the Gauss-Newton matrix, MLP 64-128-64-10, 300 examples of 10 outputs")
    print(f"  the matrix: gram {mine:.0f} ms, Jacobian and product {theirs:.0f} ms: {theirs / mine:.1f} x faster")
    print(f"  its eigenvalues (eigvalsh) {values:.0f} ms, with vectors (eigh) {both:.0f} ms; apart by {error:.1e}")
    begin = time.process_time()
    torch.linalg.eigvalsh(matrix["naive"])
    full = (time.process_time() - begin) * 1e3
    same = (theirs + full) / (mine + values)
    print(f"  gram + eigvalsh beside Jacobian + product + eigvalsh ({full:.0f} ms): {same:.1f} x")
    print(f"  gram + eigvalsh beside Jacobian + product + eigh: {(theirs + both) / (mine + values):.1f} x   goal >= 10")
    return [{"part": "gram", "ours": mine, "naive": theirs, "eigvalsh": values, "eigh": both, "error": error}]


def density(rounds: int, probes: int = 4, steps: int = 40) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    module, batch = mlp(16, 32, 32, 10), (torch.randn(300, 16), torch.randint(0, 10, (300,)))
    objective = Objective(module, F.cross_entropy)
    exact = Objective(copy.deepcopy(module).double(), F.cross_entropy)
    spectrum = torch.linalg.eigvalsh(Hessian(exact, (batch[0].double(), batch[1])).dense())
    width = float(spectrum[-1] - spectrum[0]) * 0.02
    grid = torch.linspace(float(spectrum[0]) - 4 * width, float(spectrum[-1]) + 4 * width, 2000, dtype=torch.float64)

    def smooth(nodes: Tensor, weights: Tensor) -> Tensor:
        bumps = torch.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2) / (width * (2 * torch.pi) ** 0.5)
        return bumps @ (weights / weights.sum())

    truth = smooth(spectrum, torch.ones_like(spectrum))
    errors: dict[str, list[float]] = {}

    def note(name: str, found: Tensor) -> None:
        errors.setdefault(name, []).append(float((found - truth).abs().sum() * (grid[1] - grid[0])))

    def ours() -> None:
        result = slq(Hessian(objective, batch), probes, steps, seed=len(errors.get("covector", [])))
        note("covector", smooth(result.nodes.flatten(), result.weights.flatten()))

    def theirs() -> None:
        from pyhessian.hessian import hessian as pyhessian

        torch.eig = _eig  # which pyhessian calls and torch no longer has
        torch.manual_seed(len(errors.get("pyhessian", [])))
        own = pyhessian(copy.deepcopy(module), nn.CrossEntropyLoss(), data=batch, cuda=False)
        nodes, weights = own.density(iter=steps, n_v=probes)
        note("pyhessian", smooth(torch.tensor(nodes).double().flatten(), torch.tensor(weights).double().flatten()))

    times = medians({"covector": ours, "pyhessian": theirs}, max(5, rounds))
    print(f"\ndensity of the Hessian, MLP 16-32-32-10 ({len(spectrum)} parameters), {probes} probes of {steps} steps")
    table = []
    for name, ms in times.items():
        error = statistics.mean(errors[name])
        goal = "   goal <= 0.5" if name == "pyhessian" else ""
        print(f"  {name:12s} {ms:8.1f} ms   ours / it {times['covector'] / ms:5.2f}   error {error:.3f}{goal}")
        table.append({"part": "density", "what": name, "ms": ms, "error": error})
    return table


def _eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
    measures = {"products": products, "eigenvalues": eigenvalues, "gram": gram_spectrum, "density": density}
    table: list[dict[str, Any]] = []
    with sdpa_kernel(SDPBackend.MATH):
        for name in options.parts or PARTS:
            table += measures[name](options.rounds)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
