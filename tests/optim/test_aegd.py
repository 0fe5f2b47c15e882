"""The energy's law, exact steps, and the sets that metrics keep parameters in."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError
from covector.optim import AEGD, AEPG, Affine, BoxMetric, Euclidean, Natural, Orthant, Simplex


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def follow(optimizer, x, f, steps, look):
    for _ in range(steps):
        x.grad = None
        loss = f(x)
        loss.backward()
        before = x.detach().clone()
        updates = optimizer.update(loss=loss.detach())
        optimizer.apply(updates)
        look(before, updates[x], x.grad, float(loss.detach()))


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("lr", [1e-4, 1e-2, 1.0, 100.0])
def test_the_energy_falls_by_its_law_for_every_learning_rate(lr):
    x = parameter(-3.0, -4.0)
    optimizer = AEGD([x], lr=lr)
    energies = [torch.full((2,), math.sqrt(float(rosenbrock(x.detach())) + 1), dtype=torch.float64)]

    def look(before, update, gradient, loss):
        r, last = optimizer.state[x]["energy"].clone(), energies[-1]
        error = r**2 - (last**2 - (r - last) ** 2 - update**2 / lr)
        assert bool((error.abs() <= 1e-14 * last**2).all())
        assert bool((r <= last).all())
        energies.append(r)

    follow(optimizer, x, rosenbrock, 40, look)
    assert float(energies[-1].max()) < float(energies[0].max())


METRICS = {
    "euclidean": (Euclidean(), (0.2, 0.3, 0.5)), "simplex": (Simplex(), (0.2, 0.3, 0.5)), "orthant": (Orthant(), (0.2, 0.3, 0.5)),
    "box": (BoxMetric(0.0, 1.0), (0.2, 0.3, 0.5)), "affine": (Affine(torch.tensor([[1.0, 1.0, 1.0]])), (0.2, 0.3, 0.5)),
    "natural": (Natural(lambda points: torch.diag(points[0] + 1.0) + 0.1, damping=0.0), (0.2, 0.3, 0.5)),
}  # fmt: skip
TARGET = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


def bowl(x):
    return 3.0 * (x - TARGET).square().sum()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("lr", [1e-3, 0.1])
def test_the_energy_of_a_metric_falls_by_its_law(name, lr):
    metric, start = METRICS[name]
    x = parameter(*start)
    optimizer = AEPG([x], lr=lr, metric=metric)
    energies = [math.sqrt(float(bowl(x.detach())) + 1)]

    def look(before, update, gradient, loss):
        r, last = optimizer.energy, energies[-1]
        v = gradient / (2 * math.sqrt(loss + 1))
        (d,) = metric.inverse([before], [v])
        torch.testing.assert_close(update, -2 * lr * r * d, rtol=1e-12, atol=1e-14)
        # ||x' - x||_A^2 = (2 lr r)^2 v^T d
        length = (2 * lr * r) ** 2 * float(v @ d)
        assert r**2 == pytest.approx(last**2 - (r - last) ** 2 - length / lr, rel=1e-12)
        energies.append(r)

    follow(optimizer, x, bowl, 30, look)
    assert energies[-1] < energies[0]


def test_small_rates_follow_the_preconditioned_gradient():
    x, lr = parameter(0.2, 0.3, 0.5), 1e-7
    loss = bowl(x)
    loss.backward()
    update = AEPG([x], lr=lr, metric=Simplex()).update(loss=loss.detach())[x]
    (expected,) = Simplex().inverse([x.detach()], [x.grad])
    torch.testing.assert_close(update, -lr * expected, rtol=1e-5, atol=0.0)


def test_metrics_keep_parameters_in_their_sets():
    for metric in (Simplex(), Affine(torch.ones(1, 3)), Affine(torch.ones(1, 3), Orthant())):
        x = parameter(0.2, 0.3, 0.5)
        follow(AEPG([x], lr=0.1, metric=metric, c=5.0), x, bowl, 200, lambda *seen: None)
        assert float(x.sum()) == pytest.approx(1.0, abs=1e-12)
        assert float((x - TARGET).abs().max()) < 1e-2
    assert float(BoxMetric(-1.0, 3.0).inverse([torch.tensor([-1.0, 1.0, 3.0])], [torch.ones(3)])[0].sum()) == 1.0


def test_an_affine_metric_is_the_solution_of_the_constrained_problem():
    """min 1/2 d^T M d - v^T d with B d = 0, by its optimality conditions."""
    generator = torch.Generator().manual_seed(0)
    b, v = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 5), (5,)))
    x = torch.rand(5, generator=generator, dtype=torch.float64) + 0.1
    d = Affine(b, Orthant()).inverse([x], [v])[0]
    system = torch.cat(
        [torch.cat([torch.diag(1 / x), b.T], 1), torch.cat([b, torch.zeros(2, 2, dtype=torch.float64)], 1)]
    )
    expected = torch.linalg.solve(system, torch.cat([v, torch.zeros(2, dtype=torch.float64)]))[:5]
    torch.testing.assert_close(d, expected, rtol=1e-10, atol=1e-12)


def test_a_singular_natural_metric_takes_the_pseudo_inverse():
    a = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    d = Natural(lambda points: a, damping=0.0).inverse(
        [torch.zeros(2)], [torch.tensor([1.0, 0.0], dtype=torch.float64)]
    )[0]
    torch.testing.assert_close(d, torch.tensor([0.5, 0.0], dtype=torch.float64))


def test_one_energy_serves_all_groups_and_dtypes():
    x, y = parameter(0.2, 0.3), nn.Parameter(torch.tensor([0.5]))
    optimizer = AEPG([{"params": [x], "lr": 0.1}, {"params": [y], "lr": 0.3}])
    x.grad, y.grad = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0])
    optimizer.step(loss=torch.tensor(3.0))
    assert optimizer.energy == pytest.approx(2.0 / (1 + 2 * (0.1 * 5 + 0.3 * 9) / 16))


def test_a_restart_lifts_a_sunken_energy():
    for restart in (0.0, 0.5):
        x = parameter(-3.0, -4.0)
        optimizer = AEPG([x], lr=2e-4, restart=restart)
        follow(optimizer, x, rosenbrock, 100, lambda *seen: None)
        assert (optimizer.ratio < 0.1) == (restart == 0.0)


def test_momentum_and_decay_are_those_of_the_published_code():
    x = parameter(1.0, -2.0)
    optimizer = AEGD([x], lr=0.2, momentum=0.9, weight_decay=0.1)
    p, m = x.detach().clone(), torch.zeros(2, dtype=torch.float64)
    r = torch.full((2,), math.sqrt(3.0), dtype=torch.float64)
    for _ in range(20):
        x.grad, loss = 2 * x.detach(), torch.tensor(2.0)
        optimizer.step(loss=loss)
        v = 2 * p / (2 * math.sqrt(3.0)) + 0.1 * p
        m = 0.9 * m + v
        r = r / (1 + 2 * 0.2 * m * m)
        p = p - 2 * 0.2 * r * m
    torch.testing.assert_close(x.detach(), p, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("make", [AEGD, AEPG])
@pytest.mark.parametrize(
    ("loss", "error"),
    [(None, ArgumentError), (torch.tensor(-1.0), NonFiniteError), (torch.tensor(math.nan), NonFiniteError)],
)
def test_a_loss_that_has_no_root_is_refused_and_nothing_moves(make, loss, error):
    x = parameter(1.0, 2.0)
    optimizer = make([x])
    x.grad = torch.ones_like(x)
    before = str(optimizer.state_dict())
    with pytest.raises(error):
        optimizer.step(loss=loss)
    assert str(optimizer.state_dict()) == before
    assert x.tolist() == [1.0, 2.0]


def test_bad_arguments_are_named():
    x = parameter(1.0)
    for make in (AEGD, AEPG):
        with pytest.raises(ArgumentError, match="c="):
            make([x], c=math.inf)
        with pytest.raises(UnsupportedError, match="capturable"):
            make([x], capturable=True)
    with pytest.raises(ArgumentError, match="restart"):
        AEPG([x], restart=1.0)
    with pytest.raises(ArgumentError, match="upper"):
        BoxMetric(1.0, 1.0)
    with pytest.raises(ArgumentError, match="matrix"):
        Affine(torch.ones(2, 3))
