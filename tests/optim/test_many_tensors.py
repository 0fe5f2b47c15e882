"""Thousands of small tensors step as each alone would, whatever was replaced between two steps."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from covector.errors import MismatchError
from covector.optim import AdamW

SHAPES = [(7,), (3, 5), (), (40000,), (1, 2, 3), (2, 2)] * 3


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def fill(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)


def close(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


def swap_data(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for p in params[::2]:
        p.data = p.data.clone() * 2


def drop_gradients(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for p in params[1::3]:
        p.grad = None


def reload(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def replace_states(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for p in params[::2]:
        optimizer.state[p]["exp_avg"] = optimizer.state[p]["exp_avg"].clone()
        optimizer.state[p]["exp_avg_sq"].data = optimizer.state[p]["exp_avg_sq"].data.clone()


def add_group(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    params.append(nn.Parameter(torch.ones(3, 3)))
    params[-1].grad = torch.full((3, 3), 0.5)
    optimizer.add_param_group({"params": [params[-1]], "lr": 0.3})


def transpose_a_gradient(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    params[1].grad = params[1].grad.T.contiguous().T  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [swap_data, drop_gradients, reload, replace_states, add_group, transpose_a_gradient])
def test_what_changes_between_steps_is_seen(
    change: Callable[[list[nn.Parameter], torch.optim.Optimizer], None],
) -> None:
    ours, theirs = parameters(), parameters()
    pair = ((ours, AdamW(ours, lr=0.1)), (theirs, torch.optim.AdamW(theirs, lr=0.1, foreach=False)))
    for seed in range(5):
        for params, optimizer in pair:
            fill(params, seed)
            if seed in (2, 3):
                change(params, optimizer)
            optimizer.step()
    close(ours, theirs)


def test_a_parameter_of_another_size_is_refused_and_nothing_moves() -> None:
    params = parameters()
    optimizer = AdamW(params, lr=0.1)
    fill(params, 0)
    optimizer.step()
    params[0].data = torch.zeros(100)
    before = [p.detach().clone() for p in params]
    steps = [optimizer.state[p]["step"] for p in params]
    with pytest.raises(MismatchError, match=r"\(100,\), its gradient \(7,\)"):
        optimizer.step()
    params[0].grad = torch.zeros(100)
    with pytest.raises(MismatchError, match=r"its state 'exp_avg' \(7,\)"):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert [optimizer.state[p]["step"] for p in params] == steps


def test_small_states_lie_beside_each_other_also_after_loading() -> None:
    params = [nn.Parameter(torch.ones(8)) for _ in range(4)]
    optimizer = AdamW(params)

    def distances(name: str) -> set[int]:
        places = [optimizer.state[p][name].data_ptr() for p in params]
        return {b - a for a, b in itertools.pairwise(places)}

    fill(params, 0)
    optimizer.step()
    assert distances("exp_avg") == distances("exp_avg_sq") == {32}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert distances("exp_avg") == {32}


def test_packed_states_survive_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    params = parameters()
    optimizer = AdamW(params)
    fill(params, 0)
    optimizer.step()
    states: dict[str, Tensor] = {str(i): optimizer.state[p]["exp_avg"] for i, p in enumerate(params)}
    save_file(states, tmp_path / "state.safetensors")
    loaded = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(states[name], loaded[name]) for name in states)


@pytest.mark.processes
def test_a_compiled_step_is_read_back_by_another_process(tmp_path: Path) -> None:
    code = (
        "import torch; from covector.optim import AdamW; p = torch.nn.Parameter(torch.ones(2)); "
        "p.grad = torch.ones(2); AdamW([p], lr=0.5).step(); print(p.tolist())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""
    assert list(tmp_path.rglob("*.nbc"))
