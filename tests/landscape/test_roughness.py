"""Roughness is that of functions whose variation is known, and its error bar that of more directions."""

import math

import pytest
import torch

from covector.errors import ArgumentError, NonFiniteError
from covector.landscape import barrier, line, roughness, roughness_index, total_variation
from covector.objective import Objective


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


def test_k_waves_have_2_k_over_the_length_whatever_their_phase():
    s = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for waves in (1, 4, 9):
        losses = torch.stack([(waves * math.pi * s + phase).sin() for phase in (0.0, 0.7, 2.0)])
        # up and down by the range, twice a wave
        torch.testing.assert_close(
            total_variation(losses, 1.0), torch.full((3,), waves, dtype=torch.float64), rtol=1e-3, atol=0
        )


def test_an_isotropic_bowl_is_not_rough_and_a_tilted_one_only_away_from_its_bottom():
    bowl = Objective.from_function(lambda p, batch: p["x"].square().sum(), {"x": torch.zeros(20, dtype=torch.float64)})
    assert roughness(bowl, None, directions=10).index < 1e-12
    away = {"x": torch.full((20,), 0.5, dtype=torch.float64)}
    assert roughness(bowl, None, directions=10, center=away).index > 0.05


def test_the_error_bar_is_the_spread_over_sets_of_directions():
    curvature = torch.logspace(-2, 2, 30, dtype=torch.float64)
    crooked = Objective.from_function(
        lambda p, batch: (curvature * p["x"] ** 2 + (3 * p["x"]).sin()).sum(),
        {"x": torch.zeros(30, dtype=torch.float64)},
    )
    found = {count: [roughness(crooked, None, 1.0, count, 11, seed=seed) for seed in range(24)] for count in (8, 32)}
    spread = {count: float(torch.tensor([each.index for each in runs]).std()) for count, runs in found.items()}
    said = {count: sum(each.error for each in runs) / len(runs) for count, runs in found.items()}
    for count in found:
        assert said[count] == pytest.approx(spread[count], rel=0.4)
    assert spread[8] / spread[32] == pytest.approx(2.0, rel=0.4)  # one over the square root of their number


def test_filter_normalized_directions_make_the_index_blind_to_the_scale_of_layers():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1)).double()
    objective = Objective(net, torch.nn.functional.mse_loss)
    batch = (torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64))
    before = [roughness(objective, batch, 0.5, 8, 21, filters=filters).index for filters in (True, False)]
    with torch.no_grad():
        net[0].weight.mul_(5), net[0].bias.mul_(5), net[2].weight.div_(5)
    after = [roughness(objective, batch, 0.5, 8, 21, filters=filters).index for filters in (True, False)]
    assert after[0] == pytest.approx(before[0], rel=1e-9)
    assert abs(after[1] - before[1]) > 0.01 * before[1]


def test_a_convex_loss_has_no_barrier_between_any_two_points():
    torch.manual_seed(0)
    objective = Objective(torch.nn.Linear(5, 3).double(), torch.nn.functional.cross_entropy)
    batch = (torch.randn(30, 5, dtype=torch.float64), torch.randint(3, (30,)))
    a, b = ({name: torch.randn_like(p) for name, p in objective.params.items()} for _ in range(2))
    at = torch.linspace(0, 1, 21)
    assert barrier(line(objective, batch, a, b, at, chunk=1), at) == 0.0


def test_what_has_no_roughness_is_refused():
    for call in (lambda: total_variation(torch.zeros(3), 1.0), lambda: total_variation(torch.zeros(2, 3), 0.0)):
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(ArgumentError):
        roughness_index(torch.zeros(2, 3), 1.0, normalize=False)
    with pytest.raises(ArgumentError, match="at least two"):
        roughness_index(torch.rand(1, 3), 1.0)
    with pytest.raises(NonFiniteError, match="radius"):
        roughness_index(torch.tensor([[1.0, float("nan")], [1.0, 2.0]]), 1.0)
