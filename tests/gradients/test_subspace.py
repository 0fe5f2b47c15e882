import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import Backprop, Dense, Objective, Seeded, SeedPool, Sketch, SketchPool, Subspace, ZerothOrder, trees
from covector.errors import CompositionError
from covector.gradients import coordinates


def classifier():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return Objective(module, F.cross_entropy), (torch.randn(32, 5).double(), torch.randint(0, 3, (32,)))


def spread(pool, params):
    """The matrix S, written out column by column: the oracle."""
    unit = torch.eye(pool.size)
    columns = [trees.flatten(pool.combination(unit[i]).dense(params)) for i in range(pool.size)]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("pool", [SketchPool(1, 16), SketchPool(1, 12)])
def test_x_grad_is_the_chain_rule_through_the_explicit_matrix(pool):
    objective, batch = classifier()
    subspace = Subspace(objective.params, pool)
    subspace.pull(Backprop()(objective, batch).gradient)
    dense = trees.flatten(Backprop()(objective, batch).gradient.params)
    assert torch.allclose(subspace.x.grad.double(), spread(pool, objective.params).T @ dense, atol=1e-6)


def test_sgd_on_x_moves_theta_by_the_projected_gradient():
    objective, batch = classifier()
    pool = SketchPool(1, 16)
    base = trees.flatten(trees.clone(objective.params))
    matrix = spread(pool, objective.params)
    dense = trees.flatten(Backprop()(objective, batch).gradient.params)
    subspace = Subspace(objective.params, pool)
    subspace.step(Backprop(pool)(objective, batch).gradient, torch.optim.SGD([subspace.x], lr=0.25))
    assert torch.allclose(trees.flatten(objective.params), base - 0.25 * matrix @ (matrix.T @ dense), atol=1e-6)


@pytest.mark.parametrize("estimator", ["backprop", "zeroth"])
def test_adam_on_the_coordinates_trains_all_parameters(estimator):
    objective, batch = classifier()
    pool = SketchPool(1, 32)
    subspace = Subspace(objective.params, pool)
    optimizer = torch.optim.Adam([subspace.x], lr=2e-2)
    estimate = Backprop(pool) if estimator == "backprop" else ZerothOrder(directions=pool, queries=8)
    first = objective(batch).item()
    for _ in range(40):
        subspace.step(estimate(objective, batch).gradient, optimizer)
    assert objective(batch).item() < 0.9 * first


def test_the_ledger_of_a_subspace_gives_its_parameters():
    objective, batch = classifier()
    pool = SketchPool(1, 32)
    subspace = Subspace(objective.params, pool)
    subspace.step(Backprop(pool)(objective, batch).gradient, torch.optim.Adam([subspace.x], lr=1e-2))
    replayed = subspace.to_ledger(quantum=48).materialize(subspace.theta0)
    assert all(torch.allclose(replayed[name], p, atol=1e-12) for name, p in objective.params.items())


def test_seeded_gradients_find_their_slots_in_the_pool():
    pool = SeedPool(1, 8)
    seeds = pool.seeds[[5, 2]]
    assert coordinates(Seeded(seeds, [1.0, -2.0]), pool).tolist() == [0, 0, -2.0, 0, 0, 1.0, 0, 0]


@pytest.mark.parametrize(
    ("gradient", "pool"),
    [
        (Sketch(2, [1.0, 2.0]), SketchPool(1, 2)),
        (Sketch(1, [1.0]), SketchPool(1, 2)),
        (Seeded([12345], [1.0]), SeedPool(1, 8)),
        (Seeded(SeedPool(1, 8).seeds[:1], [1.0], "binomial"), SeedPool(1, 8)),
        (Dense({"w": torch.ones(1)}), SeedPool(1, 8)),
    ],
)
def test_a_gradient_of_another_pool_is_refused(gradient, pool):
    with pytest.raises(CompositionError, match="the same pool"):
        coordinates(gradient, pool)


def test_state_resumes_exactly():
    objective, batch = classifier()
    subspace = Subspace(objective.params, SketchPool(1, 16))
    subspace.step(Backprop(subspace.pool)(objective, batch).gradient, torch.optim.SGD([subspace.x], lr=0.1))
    moved = trees.digest(objective.params)
    other, _ = classifier()
    again = Subspace(other.params, SketchPool(1, 16))
    again.load_state_dict(subspace.state_dict())
    assert trees.digest(other.params) == moved
