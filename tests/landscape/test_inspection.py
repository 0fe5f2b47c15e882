"""inspect against dense linear algebra in float64, and what it leaves untouched."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError
from covector.landscape import PARTS, Inspection, gradient_scatter, inspect, scatter_of_batches
from covector.objective import Objective
from covector.trees import digest


@pytest.fixture
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(40, 5).double(), torch.randint(3, (40,))
    return Objective(model, nn.functional.cross_entropy), [(x[:20], y[:20]), (x[20:], y[20:])]


def dense(objective, batches):
    names, shapes = list(objective.params), [p.shape for p in objective.params.values()]
    flat = torch.cat([p.detach().flatten() for p in objective.params.values()])

    def loss(vector):
        parts = vector.split([math.prod(shape) for shape in shapes])
        params = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return sum(objective(batch, params) for batch in batches) / len(batches)

    return torch.autograd.functional.hessian(loss, flat), torch.autograd.functional.jacobian(loss, flat)


def test_ends_and_overlap_are_those_of_the_dense_matrix(task):
    matrix, gradient = dense(*task)
    values, vectors = torch.linalg.eigh(matrix)
    found = inspect(*task, parts=["ends"], top=3, tol=1e-6)
    assert found.top == pytest.approx(values.flip(0)[:3].tolist())
    assert found.bottom == pytest.approx(float(values[0]))
    share = (vectors[:, -3:].T @ gradient).square().sum() / gradient.square().sum()
    assert found.overlap == pytest.approx(float(share))
    assert found.gradient == pytest.approx(float(gradient.norm()))
    assert found.converged


def test_traces_agree_with_the_dense_matrix_within_their_errors(task):
    matrix, _ = dense(*task)
    found = inspect(*task, parts=["traces"], probes=400)
    assert abs(found.trace - float(matrix.trace())) < 4 * found.trace_error
    assert found.square == pytest.approx(float(matrix.square().sum()), rel=0.2)
    start = 0
    for name, p in task[0].params.items():
        block = matrix.diagonal()[start : start + p.numel()].sum()
        assert abs(found.layers[name].trace - float(block)) < 4 * found.layers[name].error + 1e-12
        assert found.layers[name].elements == p.numel()
        start += p.numel()
    assert sum(layer.trace for layer in found.layers.values()) == pytest.approx(found.trace)


def test_the_density_integrates_to_one_and_knows_what_is_below_zero(task):
    matrix, _ = dense(*task)
    values = torch.linalg.eigvalsh(matrix)
    found = inspect(*task, parts=["density"], probes=64, steps=len(values))
    step = found.grid[1] - found.grid[0]
    assert sum(found.density) * step == pytest.approx(1.0, abs=0.03)
    below = float((values < -1e-3 * values.abs().max()).double().mean())
    assert found.negative == pytest.approx(below, abs=0.12)


def test_noise_by_examples_and_by_batches_agree_in_expectation(task):
    objective, batches = task
    x, y = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    exact = gradient_scatter(objective, (x, y))
    singles = scatter_of_batches(objective, list(zip(x.split(1), y.split(1), strict=True)))
    assert singles.trace == pytest.approx(exact.trace)
    assert singles.square == pytest.approx(exact.square)
    generator = torch.Generator().manual_seed(0)
    traces = []
    for _ in range(300):
        order = torch.randperm(40, generator=generator)
        parts = [(x[i], y[i]) for i in order.split(10)]
        traces.append(scatter_of_batches(objective, parts).trace)
    mean, error = torch.tensor(traces).mean(), torch.tensor(traces).std() / 300**0.5
    assert abs(float(mean) - exact.trace) < 4 * float(error)


def test_what_follows_from_the_numbers():
    found = Inspection(100, 32, 1.0, 0.5, lr=0.1, momentum=0.5, top=(60.0, 2.0), trace=120.0, square=3600.0)
    assert found.stable_lr == pytest.approx(0.05)
    assert found.sharpness_ratio == pytest.approx(2.0)
    assert found.condition == pytest.approx(50.0)
    assert found.effective_rank == pytest.approx(1.0)
    assert dataclasses.replace(found, bottom=-120.0).effective_rank == pytest.approx(0.25)
    assert found.gap_rate is None
    assert found.batch_size is None


def test_all_parts_travel_as_json_and_nothing_is_changed(task):
    objective, batches = task
    objective.module.train()
    before, state = digest(objective.params), torch.random.get_rng_state()
    told = []
    found = inspect(objective, batches, lr=0.1, train_examples=400, listener=told.append)
    assert told == list(PARTS) == list(found.seconds)
    text = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert text["gap_rate"] == pytest.approx(0.1 * found.scatter.trace / 400)
    assert text["products"] > 0
    assert digest(objective.params) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert objective.module.training
    assert all(p.grad is None for p in objective.params.values())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"parts": ["curvature"]}, "parts"),
        ({"parts": []}, "parts"),
        ({"top": 0}, "top=0"),
        ({"probes": 0}, "probes=0"),
        ({"steps": 1.5}, "steps=1.5"),
    ],
)
def test_what_cannot_be_is_refused_by_name(task, options, name):
    with pytest.raises(ArgumentError, match=name):
        inspect(*task, **options)


def test_no_batch_is_refused(task):
    with pytest.raises(ArgumentError, match="batches"):
        inspect(task[0], [])
