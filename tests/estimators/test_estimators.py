"""Estimators against closed forms: exact slopes of quadratics, unbiasedness, the moments of the published kernels."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import (
    Backprop,
    Dense,
    LowRankDirections,
    Objective,
    SeedPool,
    Sketch,
    SketchPool,
    ZerothOrder,
    trees,
)
from covector.errors import ArgumentError, CompositionError, NonFiniteError
from covector.estimators import kernel_weight, slope_central, slope_jvp
from covector.gradients import project

DIRECTIONS = {
    "rademacher": "rademacher",
    "binomial": "binomial",
    "normal": "normal",
    "sketch": SketchPool(1, 16),
    "seeds": SeedPool(1, 512),
    "lowrank": LowRankDirections(rank=2, refresh=1),
}


def quadratic(dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    matrix = half @ half.T
    x = torch.randn(dim, generator=generator, dtype=torch.float64)
    objective = Objective.from_function(
        lambda p, batch: 0.5 * p["x"].view(-1) @ matrix @ p["x"].view(-1), {"x": x.view(2, -1)}
    )
    return objective, {"x": (matrix @ x).view(2, -1)}


def classifier():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
    return Objective(module, F.cross_entropy), (torch.randn(32, 5), torch.randint(0, 3, (32,)))


def test_backprop_is_the_gradient_of_autograd():
    objective, batch = classifier()
    estimate = Backprop()(objective, batch)
    objective(batch).backward()
    assert all(torch.equal(estimate.gradient.params[name], p.grad) for name, p in objective.params.items())
    assert estimate.loss == objective(batch).item()


def test_backprop_into_a_sketch_carries_the_projection():
    objective, batch = classifier()
    pool = SketchPool(3, 64)
    dense = Backprop()(objective, batch).gradient.params
    sketch = Backprop(pool)(objective, batch).gradient
    assert torch.equal(sketch.x, project(dense, 3, 64))


def test_sketch_coordinates_are_the_derivative_by_x():
    objective, batch = classifier()
    pool = SketchPool(3, 32)
    base = trees.clone(objective.params)
    x = torch.zeros(32)
    slope = Backprop(pool)(objective, batch).gradient.x
    for bucket in (0, 7, 31):
        unit = torch.zeros(32)
        unit[bucket] = 1.0
        _, expected = slope_jvp(objective, batch, Sketch(3, x + unit))
        assert slope[bucket].item() == pytest.approx(expected, abs=1e-5)
    assert trees.digest(trees.clone(objective.params)) == trees.digest(base)


@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize("probe", ["central", "jvp"])
def test_slope_times_direction_on_a_quadratic_is_exact(kind, probe):
    objective, gradient = quadratic()
    estimator = ZerothOrder(probe, DIRECTIONS[kind], eps=0.25, seed=4)
    direction = estimator.directions.sample(4, 0, objective.params)
    expected = direction.dot(gradient, objective.params)
    estimate = estimator(objective, None).gradient
    reference = (direction * expected).dense(objective.params)["x"]
    assert torch.allclose(estimate.dense(objective.params)["x"], reference, rtol=1e-9)


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_the_mean_over_directions_is_the_gradient(kind):
    objective, gradient = quadratic()
    # a sketch is unbiased over its keys, a finite pool over its seeds only
    total, n = torch.zeros(2, 3, dtype=torch.float64), 600
    for i in range(n):
        directions = SketchPool(i, 16) if kind == "sketch" else SeedPool(i, 4) if kind == "seeds" else DIRECTIONS[kind]
        estimate = ZerothOrder("jvp", directions, seed=i)(objective, None).gradient
        total += estimate.dense(objective.params)["x"]
    assert ((total / n - gradient["x"]).abs() < 5 * 1.8 * trees.norm(gradient) / math.sqrt(n)).all()


@pytest.mark.parametrize(("law", "fourth"), [("rademacher", 1.0), ("normal", 3.0)])
def test_second_moment_is_d_minus_1_plus_the_fourth_moment(law, fourth):
    objective, gradient = quadratic()
    n = 800
    squares = [ZerothOrder("jvp", law, seed=i)(objective, None).gradient.norm(objective.params) ** 2 for i in range(n)]
    sample = torch.tensor(squares) / trees.norm(gradient) ** 2
    # E |g|^2 / |grad|^2 = d - 1 + E v^4 holds coordinate by coordinate only on average over gradients for signs
    expected = 6 if law == "rademacher" else 6 - 1 + fourth
    assert abs(sample.mean() - expected) < 5 * sample.std() / math.sqrt(n)


def test_forward_probe_has_the_error_of_one_half_eps_curvature():
    objective, gradient = quadratic()
    estimator = ZerothOrder("forward", eps=2.0**-6, seed=1)
    direction = estimator.directions.sample(1, 0, objective.params).dense(objective.params)
    curvature = 2 * float(objective(None, direction))
    slope = estimator(objective, None).gradient.coefficients[0].item()
    assert slope == pytest.approx(trees.dot(direction, gradient) + 2.0**-6 * curvature / 2, rel=1e-6)


def test_queries_average():
    objective, _ = quadratic()
    many = ZerothOrder(queries=4, seed=2, eps=0.25)(objective, None).gradient
    single = ZerothOrder(queries=1, seed=2, eps=0.25)
    parts = [single(objective, None).gradient for _ in range(4)]
    mean = (parts[0] + parts[1] + parts[2] + parts[3]) / 4
    assert torch.allclose(many.dense(objective.params)["x"], mean.dense(objective.params)["x"], rtol=1e-12)


def test_fzoo_divides_by_the_population_spread_of_the_losses():
    objective, _ = quadratic()
    eps, n = 2.0**-4, 8
    estimator = ZerothOrder("forward", queries=n, eps=eps, seed=3, normalize="fzoo")
    base = float(objective(None))
    losses = []
    for i in range(n):
        z = estimator.directions.sample(3, i, objective.params).dense(objective.params)["x"]
        losses.append(float(objective(None, {"x": objective.params["x"] + eps * z})))
    spread = torch.tensor(losses, dtype=torch.float64).std(unbiased=False).item()
    expected = sorted((loss - base) / (n * spread) for loss in losses)
    seen = sorted(estimator(objective, None).gradient.coefficients.tolist())
    assert seen == pytest.approx(expected, rel=1e-9)


def test_fzoo_of_a_constant_loss_is_zero():
    flat = Objective.from_function(lambda p, b: p["x"].sum() * 0 + 1.0, {"x": torch.ones(3)})
    estimate = ZerothOrder("forward", queries=2, normalize="fzoo")(flat, None)
    assert estimate.gradient.coefficients.abs().sum() == 0


def test_kernel_moments_are_those_that_remove_the_second_order_bias():
    r = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    k = torch.tensor([kernel_weight(v) for v in r.tolist()], dtype=torch.float64)
    assert torch.trapezoid(r * k, r) / 2 == pytest.approx(1.0, abs=1e-6)
    assert torch.trapezoid(r**3 * k, r) / 2 == pytest.approx(0.0, abs=1e-6)


def test_kerzoo_removes_the_bias_that_central_differences_leave():
    cubic = Objective.from_function(lambda p, b: (p["x"] ** 3).sum(), {"x": torch.ones(1, dtype=torch.float64)})
    # central: 3 + eps^2 exactly; the kernel's estimates average to 3
    assert slope_central(cubic, None, Dense({"x": torch.ones(1)}), 1.0)[1] == pytest.approx(4.0)
    n = 2500
    values = torch.tensor(
        [
            ZerothOrder(eps=1.0, seed=i, kernel="kerzoo")(cubic, None).gradient.dense(cubic.params)["x"].item()
            for i in range(n)
        ]
    )
    assert abs(values.mean() - 3.0) < 5 * values.std() / math.sqrt(n)
    assert 5 * values.std() / math.sqrt(n) < 0.9  # so that the bias of 1 would be seen


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_parameters_are_bit_identical_after_an_estimate(kind):
    objective, batch = classifier()
    before = trees.digest(objective.params)
    estimator = ZerothOrder(directions=DIRECTIONS[kind], queries=3)
    for _ in range(5):
        estimator(objective, batch)
    assert trees.digest(objective.params) == before


def test_backward_accumulates_into_grad_like_autograd():
    objective, batch = classifier()
    first, second = ZerothOrder(seed=1), ZerothOrder(seed=2)
    expected = first(objective, batch).gradient + second(objective, batch).gradient
    ZerothOrder(seed=1).backward(objective, batch)
    ZerothOrder(seed=2).backward(objective, batch)
    dense = expected.dense(objective.params)
    assert all(torch.allclose(p.grad, dense[name], atol=1e-6) for name, p in objective.params.items())


def test_any_torch_optimizer_descends_with_zeroth_order_gradients():
    objective, batch = classifier()
    optimizer = torch.optim.Adam(objective.params.values(), lr=1e-2)
    estimator = ZerothOrder(queries=8)
    first = objective(batch).item()
    for _ in range(60):
        optimizer.zero_grad()
        estimator.backward(objective, batch)
        optimizer.step()
    assert objective(batch).item() < 0.8 * first


def test_state_resumes_exactly():
    objective, batch = classifier()
    straight = ZerothOrder(seed=9, directions=LowRankDirections(2, 3))
    steps = [straight(objective, batch).gradient for _ in range(6)]
    half = ZerothOrder(seed=9, directions=LowRankDirections(2, 3))
    for _ in range(3):
        half(objective, batch)
    resumed = ZerothOrder(directions=LowRankDirections(2, 3))
    resumed.load_state_dict(half.state_dict())
    assert all(resumed(objective, batch).gradient == step for step in steps[3:])


def test_dropout_masks_are_shared_by_the_two_sides():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    module.train()
    objective = Objective(module, F.mse_loss)
    batch = (torch.randn(8, 4), torch.randn(8, 1))
    zero = Dense(trees.zeros_like(objective.params))
    assert slope_central(objective, batch, zero, 1.0)[1] == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"probe": "backward"}, ArgumentError, "probe="),
        ({"directions": "gauss"}, ArgumentError, "directions="),
        ({"directions": 3}, ArgumentError, "directions="),
        ({"eps": 0.0}, ArgumentError, "eps="),
        ({"eps": float("nan")}, ArgumentError, "eps="),
        ({"queries": 0}, ArgumentError, "queries="),
        ({"queries": True}, ArgumentError, "queries="),
        ({"normalize": "zscore"}, ArgumentError, "normalize="),
        ({"kernel": "rbf"}, ArgumentError, "kernel="),
        ({"normalize": "fzoo"}, CompositionError, "probe='forward'"),
        ({"normalize": "fzoo", "probe": "forward"}, CompositionError, "queries>=2"),
        ({"kernel": "kerzoo", "probe": "jvp"}, CompositionError, "probe='central'"),
        ({"nonfinite": "ignore"}, ArgumentError, "nonfinite="),
    ],
)
def test_wrong_options_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        ZerothOrder(**options)


@pytest.mark.parametrize("estimator", [Backprop, ZerothOrder])
def test_non_finite_losses_raise_or_are_skipped_and_counted(estimator):
    broken = Objective.from_function(lambda p, b: (p["x"] * float("nan")).sum(), {"x": torch.ones(2)})
    with pytest.raises(NonFiniteError, match="nonfinite='skip'"):
        estimator()(broken, None)
    lenient = estimator(nonfinite="skip")
    estimate = lenient(broken, None)
    assert estimate.skipped
    assert lenient.skipped == 1
    assert trees.norm(estimate.gradient.dense(broken.params)) == 0.0


def test_backprop_refuses_a_carrier_it_cannot_project_onto():
    with pytest.raises(CompositionError, match="SketchPool"):
        Backprop(SeedPool(1, 16))
