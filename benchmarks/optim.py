"""Time of an optimizer's step, for every optimizer that covector.optim exports, beside torch's and other packages'.

    python benchmarks/optim.py [elementwise] [matrix] [compile] [scaling] [--only Adam,Lion] [--rounds 7] [--json FILE]

One thread, contenders interleaved in one process, medians over rounds of the process's own processor time.

* elementwise: 8 million parameters in 1, 200 and 4000 tensors, and with --model the shapes of a 135M language model.
  "bytes" is what one fused pass must read and write for a parameter; "/ fused" the time per byte beside that of torch's
  fused AdamW (28 bytes); "x copy" the time beside one copy_ of the parameters.
* matrix: hidden matrices of two layers of the same model; "cosine" compares the first update with ours before the times
  are worth reading.
* compile: the first step in a new process, without and with what an earlier process left on disk.
* scaling: AdamW from 1 to 500 million parameters; draws docs/assets/optim-scaling.svg (takes minutes and 11 GB).
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector import optim

MILLION = 1_000_000
LAYOUTS = {"1": [(8 * MILLION,)], "200": [(40_000,)] * 200, "4000": [(2_000,)] * 4000}
PARTS = ("elementwise", "matrix", "compile", "scaling")
FIGURE = Path(__file__).parents[1] / "docs" / "assets" / "optim-scaling.svg"
TINY = {"lr": 1e-9}  # parameters are shared by all contenders and must stay ordinary numbers
# what a method is called elsewhere; and our own variants that are timed beside it
OTHER_NAMES = {"PSGD": ("PSGDKron", "PSGDPRO")}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "PSGD": {
        "ours, EQ": {"geometry": "EQ"},
        "ours, EQ, all dense": {"geometry": "EQ", "max_skew": math.inf},
    }
}
Shapes = list[tuple[int, ...]]
Row = dict[str, Any]


def model_shapes(layers: int = 30, embedding: bool = True) -> Shapes:
    """Shapes of a language model of 135 million parameters: width 576, 9 heads of which 3 have keys, hidden 1536."""
    block: Shapes = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]
    if not embedding:
        return block * layers
    return [(49152, 576), *[*block, (576,), (576,)] * layers, (576,)]


def exported() -> dict[str, Any]:
    """The optimizers that covector.optim exports, by name."""
    found = {name: getattr(optim, name) for name in optim.__all__}
    is_ours = lambda v: inspect.isclass(v) and issubclass(v, optim.Optimizer) and v is not optim.Optimizer  # noqa: E731
    return {name: value for name, value in found.items() if is_ours(value)}


def is_elementwise(make: Any) -> bool:
    """Whether a step is one pass over memory."""
    return all(slots.fused for slots in make([nn.Parameter(torch.zeros(2, 2))]).slots.values())


def named(module: str, name: str) -> Any:
    """The class of a package whose name is this but for case, or None."""
    try:
        package = __import__(module, fromlist=["x"])
    except ImportError:
        return None
    same = [key for key in dir(package) if key.lower() == name.lower() and inspect.isclass(getattr(package, key))]
    return getattr(package, same[0]) if same else None


def peers(name: str, modules: tuple[str, ...]) -> dict[str, Callable[[list[nn.Parameter]], Any]]:
    """The same method elsewhere: torch's fastest and its loop, and that of each package which has it."""
    found: dict[str, Callable[[list[nn.Parameter]], Any]] = {}
    if theirs := named("torch.optim", name):
        options = inspect.signature(theirs).parameters
        if "fused" in options:
            found["torch fused"] = lambda ps: theirs(ps, fused=True, **TINY)
        found["torch loop"] = lambda ps: theirs(ps, **TINY, **({"foreach": False} if "foreach" in options else {}))
    for module in modules:
        for alias in (name, *OTHER_NAMES.get(name, ())):
            if other := named(module, alias):
                key = module if alias == name else f"{module} {alias}"
                found[key] = lambda ps, other=other: other(ps, **TINY)  # type: ignore[misc]
    return found


def parameters(shapes: Shapes) -> list[nn.Parameter]:
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def restore(params: list[nn.Parameter]) -> None:
    """Some packages take the gradients away after a step."""
    for p in params:
        if p.grad is None:
            p.grad = torch.randn_like(p)


def medians(calls: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each call, each once a round so that a disturbance meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            begin = time.process_time()
            call()
            times[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def compile_without_search() -> None:
    """HeavyBall times every kernel's variants when it compiles, which takes more than ten minutes here for PSGD."""
    try:
        import heavyball
    except ImportError:
        return
    heavyball.utils.compile_mode = "default"


def contenders(makers: dict[str, Callable[[list[nn.Parameter]], Any]], params: list[nn.Parameter]) -> dict[str, Any]:
    """Optimizers that have made their first step; what cannot make one says why and is left out."""
    ready: dict[str, Any] = {}
    for name, make in makers.items():
        restore(params)
        try:
            optimizer = make(params)
            optimizer.step()
        except Exception as error:  # a peer's failure is its result
            print(f"    {name} left out: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
            continue
        ready[name] = optimizer
    return ready


def state_bytes(optimizer: Any) -> float:
    """Bytes kept for each parameter."""
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])

    def size(value: Any) -> int:
        if isinstance(value, Tensor):
            return value.numel() * value.element_size()
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return sum(map(size, parts))

    return sum(map(size, optimizer.state.values())) / count


def elementwise(only: list[str], rounds: int, with_model: bool) -> Iterator[Row]:
    layouts = {**LAYOUTS, **({"135M": model_shapes()} if with_model else {})}
    heads = f"{'optimizer':16s}{'tensors':>8s}{'ns':>7s}{'bytes':>6s}{'/ fused':>8s}{'x copy':>7s}{'state':>6s}"
    print(heads + "   peers: ns (ratio)")
    for layout, shapes in layouts.items():
        params = parameters(shapes)
        count = sum(p.numel() for p in params)
        source, target = torch.randn(count), torch.empty(count)
        for name, make in exported().items():
            if (only and name not in only) or not is_elementwise(make):
                continue
            makers = {"ours": lambda ps, make=make: make(ps, **TINY), **peers(name, ("pytorch_optimizer",))}
            makers["fused AdamW"] = lambda ps: torch.optim.AdamW(ps, fused=True, **TINY)
            ready = contenders(makers, params)
            if "ours" not in ready:  # it steps by the loss
                continue
            calls = {key: optimizer.step for key, optimizer in ready.items()}
            calls["copy"] = lambda source=source, target=target: target.copy_(source)
            ns = {k: v / count * 1e9 for k, v in medians(calls, rounds, lambda ps=params: restore(ps)).items()}
            traffic = 12 + 2 * state_bytes(ready["ours"])
            row = {
                "optimizer": name, "tensors": layout, "ns": ns["ours"], "bytes": traffic,
                "per byte / fused AdamW": ns["ours"] / traffic / (ns["fused AdamW"] / 28),
                "times copy": ns["ours"] / ns["copy"], "state bytes": state_bytes(ready["ours"]),
                "peers": {k: v for k, v in ns.items() if k not in ("ours", "copy", "fused AdamW")},
            }  # fmt: skip
            others = ", ".join(f"{k} {v:.2f} ({v / ns['ours']:.1f})" for k, v in row["peers"].items())
            print(
                f"{name:16s}{layout:>8s}{row['ns']:7.2f}{traffic:6.0f}{row['per byte / fused AdamW']:8.2f}"
                f"{row['times copy']:7.1f}{row['state bytes']:6.1f}   {others}"
            )
            yield row


def matrix(only: list[str], rounds: int) -> Iterator[Row]:
    params = parameters(model_shapes(layers=2, embedding=False))
    count = sum(p.numel() for p in params)
    print(f"\n{'optimizer':16s}{'ms':>9s}{'state':>7s}   peers: ms (ratio; cosine of the first update)")
    for name, make in exported().items():
        if (only and name not in only) or is_elementwise(make):
            continue
        makers = {"ours": lambda ps, make=make: make(ps, **TINY)}
        makers |= {
            key: lambda ps, make=make, options=options: make(ps, **options, **TINY)  # type: ignore[misc]
            for key, options in VARIANTS.get(name, {}).items()
        }
        makers |= peers(name, ("pytorch_optimizer", "heavyball"))
        restore(params)
        agreement = {key: direction(maker, params) for key, maker in makers.items()}
        ready = contenders(makers, params)
        if "ours" not in ready:  # it steps by the loss, or by a closure
            continue
        ms = {
            k: 1e3 * v
            for k, v in medians({k: o.step for k, o in ready.items()}, rounds, lambda: restore(params)).items()
        }
        cosine = {k: similarity(agreement["ours"], v) for k, v in agreement.items() if k in ms and k != "ours"}
        others = ", ".join(f"{k} {ms[k]:.0f} ({ms[k] / ms['ours']:.1f}; {cosine[k]:+.3f})" for k in cosine)
        print(f"{name:16s}{ms['ours']:9.1f}{state_bytes(ready['ours']):7.1f}   {others}")
        yield {
            "optimizer": name, "ms": ms["ours"], "parameters": count, "state bytes": state_bytes(ready["ours"]),
            "peers": {k: ms[k] for k in cosine}, "cosine": cosine,
        }  # fmt: skip


def direction(make: Callable[[list[nn.Parameter]], Any], like: list[nn.Parameter]) -> list[Tensor]:
    """The first update of copies of parameters, or nothing where there is none."""
    params = [nn.Parameter(p.detach().clone()) for p in like]
    for p, source in zip(params, like, strict=True):
        p.grad = None if source.grad is None else source.grad.clone()
    try:
        optimizer = make(params)
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = 1.0, 0.0
        optimizer.step()
    except Exception as error:  # a peer's failure is its result
        print(f"    no update: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        return []
    return [p.detach() - source.detach() for p, source in zip(params, like, strict=True)]


def similarity(one: list[Tensor], other: list[Tensor]) -> float:
    """The mean cosine between two updates, matrix by matrix."""
    pairs = zip(one, other, strict=False)
    cosines = [float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in pairs]
    return statistics.fmean(cosines) if cosines else math.nan


FIRST = """
import sys, time, torch
from torch import nn
from covector import optim
params = [nn.Parameter(torch.ones(64, 64)) for _ in range(2)]
for p in params:
    p.grad = torch.ones_like(p)
optimizer = getattr(optim, sys.argv[1])(params)
times = []
for _ in range(2):
    begin = time.process_time()
    optimizer.step()
    times.append(time.process_time() - begin)
print(times[0] - times[1])
"""


def first_steps(only: list[str]) -> Iterator[Row]:
    print(f"\n{'first step, seconds':20s}{'cold':>8s}{'warm':>8s}")
    for name in exported():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            command = [sys.executable, "-c", FIRST, name]
            cold, warm = (
                float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
                for _ in range(2)
            )
        print(f"{name:20s}{cold:8.2f}{warm:8.2f}")
        yield {"optimizer": name, "cold": cold, "warm": warm}


def scaling(rounds: int, largest: int = 500, path: Path = FIGURE) -> Iterator[Row]:
    """AdamW by number of parameters, in tensors of a million; draws the figure."""
    print(f"\n{'parameters':>12s}  seconds a step")
    rows = []
    for millions in [m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500) if m <= largest]:
        params = parameters([(MILLION,)] * millions)
        seconds = {}
        # one after the other: the states of three would not fit
        for name, make in {
            "Covector": lambda ps: optim.AdamW(ps, **TINY),
            "torch, fused": lambda ps: torch.optim.AdamW(ps, fused=True, **TINY),
            "torch, loop": lambda ps: torch.optim.AdamW(ps, foreach=False, **TINY),
        }.items():
            optimizer = make(params)
            optimizer.step()
            seconds[name] = medians({name: optimizer.step}, rounds, lambda: None)[name]
        row = {"parameters": millions * MILLION, **seconds}
        print(f"{millions:10d} M  " + ", ".join(f"{name} {value:.4f}" for name, value in seconds.items()))
        rows.append(row)
        yield row
    from covector.evidence import figure

    with figure(path, "AdamW, one core", "parameters", "ns per parameter and step") as axes:
        for name in list(rows[0])[1:]:
            axes.plot(
                [r["parameters"] for r in rows], [1e9 * r[name] / r["parameters"] for r in rows], "o-", label=name
            )
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all but scaling")
    parser.add_argument("--only", default="", help="names of optimizers, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", action="store_true", help="also the shapes of a 135M model (4 GB)")
    parser.add_argument("--largest", type=int, default=500, help="of scaling, in millions")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compile_without_search()
    parts = options.parts or PARTS[:3]
    only = [name for name in options.only.split(",") if name]
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    runs: dict[str, Callable[[], Iterator[Row]]] = {
        "elementwise": lambda: elementwise(only, options.rounds, options.model),
        "matrix": lambda: matrix(only, options.rounds),
        "compile": lambda: first_steps(only),
        "scaling": lambda: scaling(options.rounds, options.largest, options.figure),
    }
    found = {part: list(runs[part]()) for part in parts}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
