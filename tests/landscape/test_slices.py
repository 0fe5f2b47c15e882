"""Slices are the loss at the points they name, however many are evaluated at once, and leave everything alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, MismatchError, UnsupportedError
from covector.landscape import filter_normalized, losses_at, random_directions, slices, symmetric_grid
from covector.objective import Objective
from covector.trees import flatten, unflatten


def task(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    batch = (torch.randn(16, 3, dtype=dtype), torch.randint(2, (16,)))
    return Objective(model, nn.functional.cross_entropy), batch


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_a_slice_is_the_loss_at_each_point_and_the_model_stays(chunk):
    objective, batch = task()
    rows, at = random_directions(objective.params, 3), [-0.5, 0.0, 0.1, 2.0]
    before = copy.deepcopy(objective.module.state_dict())
    found = slices(objective, batch, rows, at, chunk=chunk)
    flat = flatten(objective.params).detach()
    for i in range(3):
        for j, s in enumerate(at):
            point = unflatten(flat + s * rows[i], objective.params)
            assert float(found[i, j]) == pytest.approx(float(objective(batch, point)), rel=1e-12)
    assert torch.equal(found[:, 1], found[:1, 1].expand(3))
    for name, value in objective.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in objective.params.values())


def test_random_directions_are_isotropic_units_that_repeat():
    params = {"w": torch.zeros(4, 5), "b": torch.zeros(4)}
    rows = random_directions(params, 4000, seed=3)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4000))
    assert float((rows.T @ rows / 4000 - torch.eye(24) / 24).abs().max()) < 0.01
    assert torch.equal(rows[:10], random_directions(params, 10, seed=3))
    assert not torch.equal(rows[:10], random_directions(params, 10, seed=4))


def test_filters_get_the_norms_of_the_weights_each_on_its_own():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    params = dict(model.named_parameters())
    rows = unflatten(filter_normalized(random_directions(params, 1), params)[0], params)
    for name in ("0.weight", "3.weight"):
        ours, theirs = rows[name].flatten(1).norm(dim=1), params[name].detach().flatten(1).norm(dim=1)
        torch.testing.assert_close(ours, theirs)
    assert not any(rows[name].any() for name in ("0.bias", "1.weight", "1.bias", "3.bias"))


def test_filter_normalized_slices_do_not_see_a_rescaling_of_the_layers():
    objective, batch = task()
    model = copy.deepcopy(objective.module)
    model[1] = nn.ReLU()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(10), scaled[0].bias.mul_(10), scaled[2].weight.div_(10)
    found = []
    for one in (model, scaled):
        own = Objective(one, nn.functional.cross_entropy)
        rows = filter_normalized(random_directions(own.params, 4), own.params)
        found.append(slices(own, batch, rows, [-0.5, 0.5]))
    torch.testing.assert_close(found[0], found[1])


def test_kept_biases_are_filters_of_their_own_and_the_picture_still_does_not_see_a_rescaling():
    found = []
    objective, batch = task()
    for factor in (1.0, 10.0):
        model = copy.deepcopy(objective.module)
        model[1] = nn.ReLU()
        with torch.no_grad():
            model[0].weight.mul_(factor), model[0].bias.mul_(factor), model[2].weight.div_(factor)
        own = Objective(model, nn.functional.cross_entropy)
        plain = random_directions(own.params, 2)
        rows = filter_normalized(plain, own.params, vectors="keep")
        assert float(unflatten(rows[0], own.params)["0.bias"].norm()) == pytest.approx(model[0].bias.norm().item())
        found.append([slices(own, batch, some, [-0.5, 0.5]) for some in (rows, plain)])
    torch.testing.assert_close(found[0][0], found[1][0])
    assert float((found[0][1] - found[1][1]).abs().max()) > 0.01  # unit directions do see it


def test_the_middle_of_a_symmetric_grid_is_the_parameters_bit_for_bit():
    objective, batch = task(torch.float32)
    at = symmetric_grid(0.3, 7)
    assert float(at[3]) == 0.0
    assert torch.equal(at, -at.flip(0))
    found = slices(objective, batch, random_directions(objective.params, 2), at, chunk=1)
    assert found[:, 3].tolist() == [objective(batch).item()] * 2


def test_a_combination_with_weights_zero_and_one_is_the_vector_itself_in_any_dtype():
    seen = []
    params = {"x": torch.zeros(50, dtype=torch.bfloat16)}
    watching = Objective.from_function(lambda p, batch: seen.append(p["x"].clone()) or p["x"].sum(), params)
    vectors = [{"x": torch.randn(50).to(torch.bfloat16)} for _ in range(3)]
    losses_at(watching, None, vectors, torch.eye(3), chunk=1)
    assert all(torch.equal(a, b["x"]) for a, b in zip(seen, vectors, strict=True))


def test_a_slice_over_batches_of_unequal_size_is_that_over_all_examples():
    objective, (inputs, targets) = task()
    rows, at = random_directions(objective.params, 2), [-1.0, 0.5]
    parts = [(inputs[:11], targets[:11]), (inputs[11:], targets[11:])]
    torch.testing.assert_close(
        slices(objective, parts, rows, at), slices(objective, (inputs, targets), rows, at), rtol=1e-12, atol=0
    )


def test_batch_normalization_and_dropout_are_looked_at_in_eval_mode_and_left_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    model[3].eval()
    objective = Objective(model, nn.functional.cross_entropy)
    batch = (torch.randn(16, 3, dtype=torch.float64), torch.randint(2, (16,)))
    before, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    found = slices(objective, batch, random_directions(objective.params, 1), [0.0, 1.0])
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert float(found[0, 0]) == pytest.approx(objective_in_eval(model, batch), rel=1e-12)


def objective_in_eval(model, batch):
    still = copy.deepcopy(model).eval()
    return nn.functional.cross_entropy(still(batch[0]), batch[1]).item()


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_random_loss_draws_the_same_numbers_at_all_points(chunk):
    noisy = Objective.from_function(lambda p, batch: (p["x"] * torch.randn(3)).sum(), {"x": torch.zeros(3)})
    state = torch.get_rng_state()
    found = slices(noisy, None, torch.eye(3), [-2.0, -1.0, 1.0, 2.0], chunk=chunk)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found[:, :2], -found[:, 2:].flip(1))
    torch.testing.assert_close(found[:, 3], 2 * found[:, 2])


def test_a_loss_that_vmap_does_not_know_is_evaluated_point_by_point():
    branching = Objective.from_function(
        lambda p, b: p["x"].sum() if p["x"].sum() > 0 else -p["x"].sum(), {"x": torch.zeros(1)}
    )
    assert slices(branching, None, torch.eye(1), [-1.0, 2.0]).tolist() == [[1.0, 2.0]]
    with pytest.raises(UnsupportedError, match="chunk=1"):
        slices(branching, None, torch.eye(1), [-1.0, 2.0], chunk=2)


def test_memory_bounds_how_many_points_are_evaluated_at_once():
    sizes = []

    def loss(p, batch):
        sizes.append(
            torch._C._functorch.get_unwrapped(p["x"]).shape[0] if torch._C._functorch.is_batchedtensor(p["x"]) else 1
        )
        return p["x"].sum()

    objective = Objective.from_function(loss, {"x": torch.zeros(1000)})
    at = torch.linspace(0, 1, 64)
    slices(objective, None, torch.ones(1, 1000), at, memory=10 * 4100)
    assert 1 < max(sizes) <= 10
    sizes.clear()
    slices(objective, None, torch.ones(1, 1000), at, memory=1)
    assert max(sizes) == 1


def test_a_slice_through_a_few_of_the_parameters_leaves_the_others_in_place():
    objective, batch = task()
    name = "2.bias"
    start, direction = {name: objective.params[name].detach()}, {name: torch.ones(2, dtype=torch.float64)}
    found = losses_at(objective, batch, [start, direction], torch.tensor([[1.0, 0.0], [1.0, 5.0]]))
    # a constant added to all logits changes nothing
    assert found.tolist() == pytest.approx([objective(batch).item()] * 2)


def test_what_cannot_be_sliced_is_refused():
    objective, batch = task()
    rows = random_directions(objective.params, 2)
    for call in (
        lambda: slices(objective, batch, rows[:, 1:], [0.0]),
        lambda: filter_normalized(rows[:, 1:], objective.params),
        lambda: losses_at(objective, batch, [{"other": torch.zeros(1)}], torch.ones(1, 1)),
        lambda: losses_at(objective, batch, [dict(objective.params)], torch.ones(1, 2)),
    ):
        with pytest.raises(MismatchError):
            call()
    for call in (
        lambda: slices(objective, batch, rows, [0.0], chunk=0),
        lambda: slices(objective, batch, rows, [0.0], memory=0),
        lambda: filter_normalized(rows, objective.params, vectors="some"),
        lambda: symmetric_grid(1.0, 4),
        lambda: symmetric_grid(0.0, 3),
    ):
        with pytest.raises(ArgumentError):
            call()
