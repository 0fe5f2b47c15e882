"""Slices are the loss at the points they name; roughness is that of functions whose variation is known."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.landscape import (
    filter_normalized,
    plane,
    principal_plane,
    random_directions,
    roughness_index,
    slices,
    total_variation,
)
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


def test_a_plane_is_made_of_slices_and_is_exact_on_a_quadratic():
    curvatures = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    params = {"x": torch.zeros(3, dtype=torch.float64)}
    bowl = Objective.from_function(lambda p, batch: 0.5 * (curvatures * p["x"] ** 2).sum(), params)
    across, up = torch.linspace(-1, 1, 5), torch.linspace(-2, 2, 3)
    found = plane(bowl, None, torch.eye(3, dtype=torch.float64)[[2, 0]], across, up)
    exact = 0.5 * (9 * across.double() ** 2 + up.double()[:, None] ** 2)
    torch.testing.assert_close(found, exact)


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


def test_the_principal_plane_holds_a_flat_trajectory():
    basis = torch.linalg.qr(torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    angles = torch.linspace(0, 2, 9, dtype=torch.float64)
    points = torch.stack([3 * angles.cos(), angles.sin()], 1) @ basis.T
    found = principal_plane([{"w": point} for point in points])
    assert found.share == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(found.places @ found.directions, points - points[-1])
    with pytest.raises(ArgumentError):
        principal_plane([{"w": points[0]}] * 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda s: 5 * s + 2, 0.5),
        (lambda s: s.abs(), 1.0),
        (lambda s: s**2, 1.0),
        (lambda s: (3 * math.pi * s).cos(), 3.0),
        (lambda s: s * 0 + 7, 0.5),
    ],
)
def test_the_variation_of_known_functions(function, expected):
    s = torch.linspace(-1, 1, 601, dtype=torch.float64)
    assert float(total_variation(function(s)[None], 1.0)) == pytest.approx(expected, rel=1e-9)


def test_the_normalized_index_does_not_see_scale_or_offset_and_the_plain_one_sees_scale():
    losses = torch.randn(20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(1)
    base, moved = roughness_index(losses, 2.0), roughness_index(3 * losses + 11, 2.0)
    assert moved.index == pytest.approx(base.index)
    plain, scaled = (total_variation(k * losses, 2.0, normalize=False) for k in (1, 3))
    torch.testing.assert_close(scaled, 3 * plain)
    assert roughness_index(losses, 0.5).mean == pytest.approx(4 * base.mean)


def test_what_cannot_be_sliced_is_refused():
    objective, batch = task()
    rows = random_directions(objective.params, 2)
    with pytest.raises(MismatchError):
        slices(objective, batch, rows[:, 1:], [0.0])
    with pytest.raises(MismatchError):
        plane(objective, batch, rows[:1], [0.0], [0.0])
    with pytest.raises(ArgumentError):
        slices(objective, batch, rows, [0.0], chunk=0)
    normed = Objective(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), nn.functional.cross_entropy)
    with pytest.raises(CompositionError, match="eval"):
        slices(normed, batch, random_directions(normed.params, 1), [0.0])
    for call in (lambda: total_variation(torch.zeros(3), 1.0), lambda: total_variation(torch.zeros(2, 3), 0.0)):
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(ArgumentError):
        roughness_index(torch.zeros(2, 3), 1.0, normalize=False)
