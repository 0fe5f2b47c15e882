"""Shampoo: its limits, blocks, grafting, roots that come late, and roots that come from another process."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.linalg import msign
from covector.optim import SOAP, Adagrad, Adam, DistributedShampoo, Shampoo
from covector.optim.shards import Shards

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def steps(optimizer: Any, params: list[nn.Parameter], first: int, last: int) -> None:
    for step in range(first, last):
        for i, p in enumerate(params):
            p.grad = draw(*p.shape, seed=100 * i + step).to(p.dtype)
        optimizer.step()


def run(make: Any, shape: tuple[int, ...] = (6, 4), count: int = 8, **options: Any) -> Tensor:
    p = nn.Parameter(draw(*shape, seed=99))
    steps(make([p], **options), [p], 0, count)
    return p.detach()


def root(matrix: Tensor, p: int) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).add(1e-6 * values[-1]) ** (-1 / p)) @ vectors.T


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("power", [2, 4])
def test_shampoo_is_the_published_algorithm(power: int, method: str) -> None:
    ours = run(Shampoo, lr=0.1, betas=(0.8, 0.9), graft="none", refresh=2, start=1, power=power, root=method)
    w, m = draw(6, 4, seed=99), torch.zeros(6, 4, dtype=F64)
    left, right = torch.zeros(6, 6, dtype=F64), torch.zeros(4, 4, dtype=F64)
    for t in range(1, 9):
        g = draw(6, 4, seed=t - 1)
        m = 0.8 * m + 0.2 * g
        left, right = 0.9 * left + 0.1 * g @ g.T, 0.9 * right + 0.1 * g.T @ g
        if t == 1 or t % 2 == 0:
            pl, pr = root(left / (1 - 0.9**t), power), root(right / (1 - 0.9**t), power)
        w = w - 0.1 * pl @ (m / (1 - 0.8**t)) @ pr
    torch.testing.assert_close(ours, w, rtol=1e-6, atol=1e-6)


def test_on_one_gradient_shampoo_is_the_polar_factor_and_so_is_soap() -> None:
    p, q = (nn.Parameter(torch.zeros(5, 5, dtype=F64)) for _ in range(2))
    shampoo = Shampoo([p], lr=1.0, betas=(0.0, 0.9), graft="none", refresh=1, ridge=0.0)
    soap = SOAP([q], lr=1.0, betas=(0.0, 0.0), weight_decay=0.0, refresh=1)
    for _ in range(3):
        p.grad, q.grad = draw(5, 5), draw(5, 5)
        update, other = shampoo.update()[p], soap.update()[q]
    torch.testing.assert_close(update, -msign(draw(5, 5), "svd"))
    torch.testing.assert_close(other, update, rtol=0.0, atol=1e-6)


def test_with_blocks_of_one_element_it_is_adagrad() -> None:
    shampoo = run(Shampoo, lr=0.1, betas=(0.0, 1.0), block=1, graft="none", refresh=1, ridge=0.0)
    torch.testing.assert_close(shampoo, run(Adagrad, lr=0.1, eps=1e-300))


def test_blocks_are_preconditioned_as_parameters_of_their_own() -> None:
    whole = nn.Parameter(draw(6, 7, seed=99))
    optimizer = Shampoo([whole], graft="none", block=4, refresh=2, start=1)
    cuts = [
        (slice(0, 4), slice(0, 4)),
        (slice(0, 4), slice(4, 7)),
        (slice(4, 6), slice(0, 4)),
        (slice(4, 6), slice(4, 7)),
    ]
    parts = [nn.Parameter(whole.detach()[cut].clone()) for cut in cuts]
    apart = Shampoo(parts, graft="none", refresh=2, start=1)
    for step in range(5):
        whole.grad = draw(6, 7, seed=step)
        for part, cut in zip(parts, cuts, strict=True):
            part.grad = whole.grad[cut].clone()
        optimizer.step()
        apart.step()
    for part, cut in zip(parts, cuts, strict=True):
        torch.testing.assert_close(whole.detach()[cut], part.detach())


def test_full_matrix_adagrad_is_bounded_by_the_kronecker_factors() -> None:
    """``sum g g^T <= r (L (x) R)^(1/2)``, Gupta et al. 2018, Lemma 8: why inverse fourth roots suffice."""
    p = nn.Parameter(torch.zeros(6, 4, dtype=F64))
    optimizer = Shampoo([p], betas=(0.0, 1.0), graft="none", refresh=1)
    full = torch.zeros(24, 24, dtype=F64)
    for step in range(9):
        p.grad = draw(6, 4, seed=step)
        full += torch.outer(p.grad.flatten(), p.grad.flatten())
        optimizer.step()
    state = optimizer.state[p]
    halves = [torch.linalg.eigh(state[f"{side}.0"][0]) for side in ("left", "right")]
    left, right = ((v * e.clamp_min(0).sqrt()) @ v.T for e, v in halves)
    gap = torch.linalg.eigvalsh(4 * torch.kron(left, right) - full)
    assert float(gap.min()) >= -1e-9
    assert (
        float(torch.linalg.eigvalsh(0.2 * torch.kron(left, right) - full).min()) < 0
    )  # it is a bound, not slack alone


@pytest.mark.parametrize(("graft", "make"), [("adam", Adam), ("adagrad", Adagrad)])
def test_a_grafted_step_is_as_long_as_the_other_methods_update(graft: str, make: Any) -> None:
    p, q = (nn.Parameter(torch.zeros(6, 4, dtype=F64)) for _ in range(2))
    betas = {"betas": (0.9, 0.99)} if graft == "adam" else {}
    shampoo = Shampoo([p], lr=0.1, betas=(0.9, 0.99), eps=1e-8, graft=graft, refresh=3)
    other = make([q], lr=0.1, eps=1e-8, **betas)
    for step in range(8):
        p.grad, q.grad = draw(6, 4, seed=step), draw(6, 4, seed=step)
        ours, theirs = shampoo.update()[p], other.update()[q]
        torch.testing.assert_close(ours.norm(), theirs.norm())
        if step + 1 < 3:  # before the first roots the other method's step is taken
            torch.testing.assert_close(ours, theirs)
        else:
            assert float(torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)) < 0.99


@pytest.mark.parametrize("graft", ["sgd", "rmsprop"])
def test_grafting_changes_the_length_and_not_the_direction(graft: str) -> None:
    p, q = (nn.Parameter(torch.zeros(6, 4, dtype=F64)) for _ in range(2))
    one = Shampoo([p], lr=1.0, betas=(0.8, 0.9), graft=graft, refresh=1)
    two = Shampoo([q], lr=1.0, betas=(0.8, 0.9), graft="none", refresh=1)
    m, v = torch.zeros(6, 4, dtype=F64), torch.zeros(6, 4, dtype=F64)
    for t in range(1, 5):
        g = draw(6, 4, seed=t)
        p.grad, q.grad = g.clone(), g.clone()
        a, b = one.update()[p], two.update()[q]
        torch.testing.assert_close(a / a.norm(), b / b.norm())
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        grafted = {"sgd": m / (1 - 0.8**t), "rmsprop": g / ((v / (1 - 0.9**t)).sqrt() + 1e-8)}[graft]
        torch.testing.assert_close(a.norm(), grafted.norm())


def late(count: int, refresh: int) -> Tensor:
    """Roots of the statistics of the renewal before, without any thread."""
    w, m = draw(6, 4, seed=99), torch.zeros(6, 4, dtype=F64)
    left, right = torch.zeros(6, 6, dtype=F64), torch.zeros(4, 4, dtype=F64)
    pending: tuple[Tensor, Tensor] | None = None
    for t in range(1, count + 1):
        g = draw(6, 4, seed=t - 1)
        m = 0.9 * m + 0.1 * g
        left, right = 0.99 * left + 0.01 * g @ g.T, 0.99 * right + 0.01 * g.T @ g
        if t % refresh == 0:
            now = root(left / (1 - 0.99**t), 4), root(right / (1 - 0.99**t), 4)
            roots, pending = pending or now, now
        step = m / (1 - 0.9**t)
        if t >= refresh:
            step = roots[0] @ step @ roots[1]
        w = w - 0.1 * step
    return w


def test_roots_in_the_background_are_used_from_the_next_renewal_on() -> None:
    ours = run(Shampoo, count=11, lr=0.1, betas=(0.9, 0.99), graft="none", refresh=3, background=True)
    torch.testing.assert_close(ours, late(11, 3), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("halt", [3, 4, 6, 7])
def test_a_run_halted_while_roots_are_computed_goes_on_the_same(halt: int) -> None:
    def fresh() -> tuple[list[nn.Parameter], Shampoo]:
        params = [nn.Parameter(draw(6, 4, seed=99).float()), nn.Parameter(draw(6, 4, seed=98).float())]
        return params, Shampoo(params, lr=0.1, refresh=3, background=True)

    straight, optimizer = fresh()
    steps(optimizer, straight, 0, 12)
    halted, first = fresh()
    steps(first, halted, 0, halt)
    saved = copy.deepcopy(first.state_dict())
    second = Shampoo(halted, lr=0.1, refresh=3, background=True)
    second.load_state_dict(saved)
    steps(second, halted, halt, 12)
    assert all(torch.equal(a, b) for a, b in zip(straight, halted, strict=True))


def test_a_parameter_that_skips_a_step_does_not_confuse_the_others() -> None:
    params = [nn.Parameter(draw(4, 4, seed=i)) for i in range(3)]
    optimizer = Shampoo(params, refresh=2, background=True)
    for step in range(9):
        for i, p in enumerate(params):
            p.grad = None if i == 1 and step in (2, 5) else draw(4, 4, seed=10 * i + step)
        optimizer.step()
    alone = nn.Parameter(draw(4, 4, seed=0))
    single = Shampoo([alone], refresh=2, background=True)
    for step in range(9):
        alone.grad = draw(4, 4, seed=step)
        single.step()
    torch.testing.assert_close(params[0], alone)


def test_shards_put_results_back_in_order() -> None:
    batch = draw(5, 2, 2)
    parts = []
    for rank in range(3):
        shards = Shards(None)
        shards.rank, shards.size = rank, 3
        parts.append(shards.own(batch))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(parts), batch[[0, 3, 1, 4, 2]])


def process_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shampoo_process", Path(__file__).with_name("shampoo_process.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.processes
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    script, store = Path(__file__).with_name("shampoo_process.py"), tmp_path / "store"
    outs = [tmp_path / f"{rank}.safetensors" for rank in range(2)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    running = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(store), str(out)], env=environment)
        for rank, out in enumerate(outs)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    one, two = (load_file(out) for out in outs)
    module = process_module()
    for background in (False, True):
        for i, p in enumerate(module.train(background)):
            name = f"{background}.{i}"
            assert torch.equal(one[name], two[name])
            torch.testing.assert_close(one[name], p.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [{"block": 0}, {"refresh": 0}, {"power": 0}, {"root": "svd"}, {"graft": "lion"}, {"ridge": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, 1.0)}],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Shampoo([nn.Parameter(torch.zeros(2, 2))], **options)


def test_without_other_processes_the_distributed_form_is_the_plain_one() -> None:
    one = run(DistributedShampoo, refresh=2)
    torch.testing.assert_close(one, run(Shampoo, refresh=2, background=True))
