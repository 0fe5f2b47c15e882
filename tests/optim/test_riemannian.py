"""Riemannian optimizers: flat limits, isometries, geoopt step by step, and lazy rows."""

import copy

import geoopt
import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, UnsupportedError
from covector.optim import RiemannianAdagrad, RiemannianAdam, RiemannianAMSGrad, RiemannianSGD
from covector.optim.manifolds import Euclidean, ManifoldParameter, PoincareBall, Sphere, Stiefel

F64 = torch.float64
ALL = [RiemannianSGD, RiemannianAdagrad, RiemannianAdam, RiemannianAMSGrad]
every = pytest.mark.parametrize("cls", ALL)


def numbers(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(optimizer, params, steps=12, turn=None, offset=0):
    for t in range(steps):
        for k, p in enumerate(params):
            g = numbers(*p.shape, seed=100 * t + k + offset)
            p.grad = (g if turn is None else turn(g)).to(p.dtype)
        optimizer.step()


FLAT = [
    (RiemannianSGD, {"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    (RiemannianAdagrad, {}, torch.optim.Adagrad, {}),
    (RiemannianAdam, {}, torch.optim.Adam, {}),
    (RiemannianAMSGrad, {}, torch.optim.Adam, {"amsgrad": True}),
    (RiemannianAdam, {"weight_decay": 0.3}, torch.optim.AdamW, {"weight_decay": 0.3}),
]


@pytest.mark.parametrize(("cls", "options", "reference", "reference_options"), FLAT)
@pytest.mark.parametrize("factors", ["lines", "no manifold"])
def test_on_a_product_of_lines_it_is_the_usual_optimizer(cls, options, reference, reference_options, factors):
    data = numbers(6, 1)
    p = ManifoldParameter(data, Euclidean()) if factors == "lines" else nn.Parameter(data.clone())
    q = nn.Parameter(data.clone())
    run(cls([p], 0.05, **options), [p])
    run(reference([q], 0.05, **reference_options), [q])
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-12, atol=1e-13)


def test_on_one_flat_factor_the_second_moment_is_a_scalar():
    p, lr, (b1, b2) = ManifoldParameter(numbers(3, 4), Euclidean()), 0.1, (0.9, 0.99)
    x, m, v = p.detach().clone(), torch.zeros(3, 4, dtype=F64), torch.zeros(3, 1, dtype=F64)
    run(RiemannianAdam([p], lr, (b1, b2)), [p], steps=5)
    for t in range(5):
        g = numbers(3, 4, seed=100 * t)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g).sum(1, keepdim=True)
        x -= lr * (m / (1 - b1 ** (t + 1))) / ((v / (1 - b2 ** (t + 1))).sqrt() + 1e-8)
    torch.testing.assert_close(p.detach(), x, rtol=1e-12, atol=1e-13)


def test_averaged_amsgrad_keeps_the_largest_mean_of_all_squares():
    p = ManifoldParameter(numbers(3, 4), Euclidean())
    optimizer = RiemannianAMSGrad([p], 0.1, average=True)
    run(optimizer, [p], steps=7)
    squares = torch.stack([numbers(3, 4, seed=100 * t).square().sum(1, keepdim=True) for t in range(7)])
    means = squares.cumsum(0) / torch.arange(1, 8).view(-1, 1, 1)
    torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"], means[-1])
    torch.testing.assert_close(optimizer.state[p]["max_exp_avg_sq"], means.amax(0))


@every
@pytest.mark.parametrize("update", ["exp", "retract"])
@pytest.mark.parametrize("manifold", [Sphere(), PoincareBall()], ids=repr)
def test_rotating_the_space_rotates_the_path(cls, update, manifold):
    q = torch.linalg.qr(numbers(4, 4))[0]
    data = 0.3 * numbers(6, 4, seed=1)
    p, r = ManifoldParameter(data, manifold), ManifoldParameter(data @ q, manifold)
    run(cls([p], 0.05, update=update), [p])
    run(cls([r], 0.05, update=update), [r], turn=lambda g: g @ q)
    torch.testing.assert_close(p.detach() @ q, r.detach(), rtol=1e-9, atol=1e-10)


@every
def test_moving_the_origin_of_the_ball_moves_the_path(cls):
    # the isometry x -> a + x of Mobius addition, and gradients of a function of distances
    ball, a = PoincareBall(), torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    start, targets = 0.3 * numbers(5, 3, seed=1), 0.3 * numbers(5, 3, seed=2).clamp(-1, 1)
    ends = []
    for shift in (lambda x: x, lambda x: ball.add(a.expand_as(x), x)):
        p = ManifoldParameter(shift(start), ball)
        optimizer = cls([p], 0.02)
        for _ in range(15):
            optimizer.zero_grad()
            ball.distance(p, shift(targets)).square().sum().backward()
            optimizer.step()
        ends.append((shift(start), p.detach(), shift))
    torch.testing.assert_close(ends[1][2](ends[0][1]), ends[1][1], rtol=1e-8, atol=1e-9)
    assert float((ends[0][1] - start).abs().max()) > 1e-2


GEOOPT = [
    (PoincareBall(0.7), geoopt.PoincareBall(c=0.7), "retract"),
    (PoincareBall(0.7), geoopt.PoincareBallExact(c=0.7), "exp"),
    (Stiefel(), geoopt.EuclideanStiefel(), "retract"),
    (Stiefel(), geoopt.EuclideanStiefelExact(), "exp"),
]


@pytest.mark.parametrize(("ours", "theirs", "update"), GEOOPT, ids=lambda value: str(value))
@pytest.mark.parametrize("amsgrad", [False, True])
def test_every_step_is_that_of_geoopt(ours, theirs, update, amsgrad):
    data = ours.project(0.3 * numbers(6, 4, 2, seed=1) if isinstance(ours, Stiefel) else 0.3 * numbers(6, 4, seed=1))
    p = ManifoldParameter(data, ours)
    q = geoopt.ManifoldParameter(data.clone(), manifold=theirs.double())
    mine = (RiemannianAMSGrad if amsgrad else RiemannianAdam)([p], 0.05, update=update)
    other = geoopt.optim.RiemannianAdam([q], 0.05, amsgrad=amsgrad)
    for step in range(10):
        run(mine, [p], steps=1, offset=step)
        run(other, [q], steps=1, offset=step)
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("update", ["exp", "retract"])
def test_descent_in_the_ball_is_that_of_geoopt(update):
    data = 0.3 * numbers(6, 4, seed=1)
    theirs = geoopt.PoincareBallExact() if update == "exp" else geoopt.PoincareBall()
    p, q = ManifoldParameter(data, PoincareBall()), geoopt.ManifoldParameter(data.clone(), manifold=theirs.double())
    run(RiemannianSGD([p], 0.1, update=update), [p])
    # without momentum: geoopt starts the velocity from the Euclidean derivative
    run(geoopt.optim.RiemannianSGD([q], 0.1), [q])
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-8, atol=1e-9)


@every
@pytest.mark.parametrize("update", ["exp", "retract"])
def test_single_precision_matrices_stay_orthonormal(cls, update):
    p = ManifoldParameter(numbers(3, 6, 2, dtype=torch.float32), Stiefel())
    run(cls([p], 0.1, update=update), [p], steps=300)
    assert float((p.mT @ p - torch.eye(2)).abs().max()) < 2e-6


@every
def test_the_largest_eigenvalue_is_found_on_the_sphere(cls):
    a = numbers(5, 5)
    a = a + a.T
    p = ManifoldParameter(numbers(4, 5, seed=1), Sphere())
    optimizer = cls([p], 0.5 if cls is RiemannianAdagrad else 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (-(p @ a) * p).sum().backward()
        optimizer.step()
    found = ((p @ a) * p).sum(1).detach()
    torch.testing.assert_close(found, torch.linalg.eigvalsh(a)[-1].expand(4), rtol=2e-2, atol=2e-2)


@every
def test_points_of_many_parameters_step_as_in_one(cls):
    data = 0.3 * numbers(6, 4)
    whole = ManifoldParameter(data, PoincareBall())
    parts = [ManifoldParameter(data[:2].reshape(2, 1, 4), PoincareBall()), ManifoldParameter(data[2:], PoincareBall())]
    lines = nn.Parameter(numbers(3))
    one, many = cls([whole], 0.05), cls([*parts, lines], 0.05)
    for t in range(5):
        g = numbers(6, 4, seed=t)
        whole.grad, parts[0].grad, parts[1].grad, lines.grad = g, g[:2].reshape(2, 1, 4), g[2:], torch.ones_like(lines)
        one.step()
        many.step()
    joined = torch.cat([parts[0].detach().reshape(2, 4), parts[1].detach()])
    assert torch.equal(joined, whole.detach())


@every
def test_lazy_rows_are_those_of_a_run_of_their_own(cls):
    data = 0.3 * numbers(5, 3)
    table = ManifoldParameter(data, PoincareBall())
    rows = [ManifoldParameter(row, PoincareBall()) for row in data]
    lazy, own = cls([table], 0.05, lazy=True), [cls([row], 0.05) for row in rows]
    for t in range(10):
        touched = [k for k in range(4) if (t * (k + 1)) % 3 != 1]
        g = torch.zeros(5, 3, dtype=F64)
        for k in touched:
            g[k] = numbers(3, seed=10 * t + k)
            rows[k].grad = g[k].clone()
            own[k].step()
        table.grad = g
        lazy.step()
    torch.testing.assert_close(table.detach(), torch.stack([row.detach() for row in rows]), rtol=1e-12, atol=1e-13)
    assert torch.equal(table.detach()[4], data[4])


@every
@pytest.mark.parametrize("lazy", [False, True])
def test_points_resume_bit_for_bit(cls, lazy):
    straight = [ManifoldParameter(0.3 * numbers(5, 3), PoincareBall()), nn.Parameter(numbers(4))]
    halted = [copy.deepcopy(p) for p in straight]
    one, two = cls(straight, 0.05, lazy=lazy), cls(halted, 0.05, lazy=lazy)
    run(one, straight, 3)
    run(one, straight, 3, offset=7)
    run(two, halted, 3)
    again = cls(halted, 0.05, lazy=lazy)
    again.load_state_dict(copy.deepcopy(two.state_dict()))
    run(again, halted, 3, offset=7)
    assert all(torch.equal(a, b) for a, b in zip(straight, halted, strict=True))


@every
@pytest.mark.parametrize("lazy", [False, True])
def test_the_update_of_points_is_what_a_step_adds(cls, lazy):
    stepped = ManifoldParameter(0.3 * numbers(5, 3), PoincareBall())
    valued = copy.deepcopy(stepped)
    one, two = cls([stepped], 0.05, lazy=lazy), cls([valued], 0.05, lazy=lazy)
    for t in range(4):
        stepped.grad = valued.grad = numbers(5, 3, seed=t) * torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0]])
        one.step()
        before = valued.detach().clone()
        updates = two.update()
        assert torch.equal(valued, before)
        two.apply(updates)
        torch.testing.assert_close(stepped.detach(), valued.detach(), rtol=1e-12, atol=1e-14)


def test_decay_alone_shrinks_the_distance_to_the_origin_by_its_share():
    ball = PoincareBall()
    p = ManifoldParameter(0.3 * numbers(5, 3), ball)
    before = ball.distance(torch.zeros_like(p), p.detach())
    p.grad = torch.zeros_like(p)
    RiemannianAdam([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(ball.distance(torch.zeros_like(p), p.detach()), 0.95 * before)


def test_the_gradient_in_p_grad_is_left_alone():
    p = ManifoldParameter(0.3 * numbers(5, 3), PoincareBall())
    p.grad = numbers(5, 3)
    RiemannianAdam([p], weight_decay=0.1).step()
    assert torch.equal(p.grad, numbers(5, 3))


def test_bfloat16_points_keep_float32_states_and_stay_inside():
    p = ManifoldParameter((0.3 * numbers(5, 3)).bfloat16(), PoincareBall())
    optimizer = RiemannianAdam([p], 0.5)
    for t in range(20):
        p.grad = numbers(5, 3, seed=t).bfloat16()
        optimizer.step()
    assert optimizer.state[p]["exp_avg"].dtype == optimizer.state[p]["exp_avg_sq"].dtype == torch.float32
    assert float(p.detach().float().norm(dim=1).max()) < 1


def test_a_second_moment_is_one_number_for_each_point():
    p = ManifoldParameter(numbers(5, 4, 2), Stiefel())
    optimizer = RiemannianAdam([p])
    run(optimizer, [p], 1)
    assert optimizer.state[p]["exp_avg_sq"].shape == (5, 1, 1)


def test_what_cannot_be_is_named():
    p = ManifoldParameter(numbers(2, 3), Sphere())
    with pytest.raises(UnsupportedError, match="no origin"):
        RiemannianAdam([p], weight_decay=0.1)
    with pytest.raises(ArgumentError, match="update="):
        RiemannianAdam([p], update="walk")
    with pytest.raises(ArgumentError, match="lazy="):
        RiemannianAdam([p], lazy=True, capturable=True)
