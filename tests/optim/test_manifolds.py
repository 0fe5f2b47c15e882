"""Manifolds: geodesics, metrics and transports against closed forms, autograd and an independent implementation."""

import copy
import math

import geoopt
import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, UnsupportedError
from covector.optim.manifolds import Euclidean, ManifoldParameter, PoincareBall, Sphere, Stiefel
from covector.optim.roles import roles

F64 = torch.float64
BALLS = [PoincareBall(), PoincareBall(0.3)]
MANIFOLDS = [Euclidean(), Sphere(), *BALLS, Stiefel()]
CURVED = [Sphere(), *BALLS]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


def numbers(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def points(manifold, count=7, seed=0, dtype=F64):
    shape = (count, 5, 2) if manifold.point_dims == 2 else (count, 4)
    scale = 0.2 if isinstance(manifold, PoincareBall) else 1.0
    return manifold.project(numbers(*shape, seed=seed, dtype=dtype) * scale)


def vectors(manifold, x, seed=1, scale=0.3):
    # a Riemannian gradient is tangent
    return manifold.gradient(x, scale * numbers(*x.shape, seed=seed, dtype=x.dtype))


def gap(a, b):
    return float((a - b).abs().max())


@every
def test_the_gradient_represents_the_derivative_in_the_metric(manifold):
    x, w = points(manifold), numbers(*points(manifold).shape, seed=3)
    v = vectors(manifold, x)
    slope = (w * v).sum(manifold.dims, keepdim=True)
    torch.testing.assert_close(manifold.inner(x, manifold.gradient(x, w), v), slope, rtol=1e-10, atol=1e-12)


@every
@pytest.mark.parametrize("path", ["exp", "retract"])
def test_paths_stay_on_the_manifold_and_start_with_their_velocity(manifold, path):
    move, x = getattr(manifold, path), points(manifold)
    u, h = vectors(manifold, x), 1e-6
    y = move(x, u)
    assert gap(y, manifold.project(y)) < 1e-12
    assert gap((move(x, h * u) - move(x, -h * u)) / (2 * h), u) < 1e-8
    assert gap(move(x, 0 * u), x) < 1e-12


@every
def test_a_geodesic_has_constant_speed(manifold):
    x = points(manifold)
    u = vectors(manifold, x)
    speeds, h = [], 1e-5
    for t in (0.0, 0.5, 1.0):
        y = manifold.exp(x, t * u)
        velocity = (manifold.exp(x, (t + h) * u) - manifold.exp(x, (t - h) * u)) / (2 * h)
        speeds.append(manifold.inner(y, velocity, velocity))
    assert gap(speeds[0], speeds[1]) < 1e-6
    assert gap(speeds[0], speeds[2]) < 1e-6


@every
def test_the_retraction_agrees_with_the_geodesic_to_first_order(manifold):
    x = points(manifold)
    u = vectors(manifold, x)
    errors = [gap(manifold.exp(x, h * u), manifold.retract(x, h * u)) for h in (1e-2, 1e-3)]
    assert errors[1] <= errors[0] / 50 + 1e-15


@pytest.mark.parametrize("manifold", CURVED, ids=repr)
def test_the_distance_is_the_length_of_the_geodesic(manifold):
    x = points(manifold)
    u = vectors(manifold, x)
    length = manifold.inner(x, u, u).sqrt().squeeze(-1)
    torch.testing.assert_close(manifold.distance(x, manifold.exp(x, u)), length, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("manifold", [Euclidean(), *CURVED], ids=repr)
def test_parallel_transport_preserves_inner_products_and_comes_back(manifold):
    x, y = points(manifold), points(manifold, seed=5)
    u, v = vectors(manifold, x, 1), vectors(manifold, x, 2)
    moved_u, moved_v = manifold.transport(x, y, u), manifold.transport(x, y, v)
    torch.testing.assert_close(manifold.inner(y, moved_u, moved_v), manifold.inner(x, u, v), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(manifold.transport(y, x, moved_u), u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("manifold", CURVED, ids=repr)
def test_a_geodesic_transports_its_own_velocity(manifold):
    x = points(manifold)
    u, h = vectors(manifold, x), 1e-6
    y = manifold.exp(x, u)
    velocity = (manifold.exp(x, (1 + h) * u) - manifold.exp(x, (1 - h) * u)) / (2 * h)
    assert gap(manifold.transport(x, y, u), velocity) < 1e-7


def test_transport_on_the_stiefel_manifold_is_tangent_and_never_lengthens():
    manifold = Stiefel()
    x = points(manifold)
    u = vectors(manifold, x)
    y = manifold.exp(x, vectors(manifold, x, 2))
    moved = manifold.transport(x, y, u)
    assert gap(moved, manifold.gradient(y, moved)) < 1e-12
    assert bool((manifold.inner(y, moved, moved) <= manifold.inner(x, u, u) + 1e-12).all())


@pytest.mark.parametrize("manifold", [Euclidean(), *BALLS], ids=repr)
def test_the_way_to_the_origin_ends_there_and_shrinks_the_distance_evenly(manifold):
    x = points(manifold)
    origin = torch.zeros_like(x)
    assert gap(manifold.exp(x, manifold.log_origin(x)), origin) < 1e-10
    if isinstance(manifold, PoincareBall):
        part = manifold.exp(x, 0.25 * manifold.log_origin(x))
        torch.testing.assert_close(manifold.distance(origin, part), 0.75 * manifold.distance(origin, x))


@pytest.mark.parametrize("c", [1.0, 0.3])
def test_the_ball_agrees_with_geoopt(c):
    theirs = geoopt.PoincareBall(c=c).double()
    ours = PoincareBall(float(theirs.c))  # geoopt rounds it to single precision first
    x, y = points(ours), points(ours, seed=5)
    u = vectors(ours, x)
    pairs = [
        (ours.exp(x, u), theirs.expmap(x, u)),
        (ours.distance(x, y), theirs.dist(x, y)),
        (ours.transport(x, y, u), theirs.transp(x, y, u)),
        (ours.gradient(x, u), theirs.egrad2rgrad(x, u)),
        (ours.inner(x, u, u), theirs.inner(x, u, u, keepdim=True)),
        (ours.add(x, y), theirs.mobius_add(x, y)),
        (ours.project(5 * x), theirs.projx(5 * x)),
        (ours.log_origin(x), theirs.logmap(x, torch.zeros_like(x))),
    ]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_the_stiefel_manifold_agrees_with_geoopt():
    ours, theirs = Stiefel(), geoopt.EuclideanStiefel()
    x = points(ours)
    u = vectors(ours, x)
    assert gap(ours.exp(x, u), theirs.expmap(x, u)) < 1e-12
    assert gap(ours.retract(x, u), theirs.retr(x, u)) < 1e-12
    assert gap(ours.gradient(x, 3 * x + u), theirs.egrad2rgrad(x, 3 * x + u)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_distance_in_the_ball_is_exact_when_small_and_finite_at_the_boundary(dtype):
    ball = PoincareBall()
    x = torch.tensor([0.5, 0.0], dtype=dtype)
    h = 1e-5
    near = x + torch.tensor([h, 0.0], dtype=dtype)
    assert float(ball.distance(x, near)) == pytest.approx(2 * (math.atanh(0.5 + h) - math.atanh(0.5)), rel=1e-2)
    ends = ball.project(torch.tensor([[9.0, 0.0], [-9.0, 0.0]], dtype=dtype))
    assert bool(ball.distance(ends[0], ends[1]).isfinite())
    same = x.clone().requires_grad_()
    ball.distance(same, x).backward()
    assert bool(same.grad.isfinite().all())


@pytest.mark.parametrize("manifold", CURVED, ids=repr)
def test_single_precision_stays_inside_however_far_it_is_pushed(manifold):
    x = points(manifold, dtype=torch.float32)
    for seed in range(50):
        x = manifold.exp(x, vectors(manifold, x, seed, scale=30.0))
    assert bool(x.isfinite().all())
    assert gap(x, manifold.project(x)) < 1e-6


def test_a_parameter_keeps_its_manifold_through_copies_and_casts():
    table = nn.Embedding(6, 3)
    table.weight = ManifoldParameter(table.weight.detach(), Sphere())
    for module in (table, copy.deepcopy(table), copy.deepcopy(table).double()):
        assert isinstance(module.weight, nn.Parameter)
        assert module.weight.manifold == Sphere()
        assert roles(module)["weight"].value == "point"
        torch.testing.assert_close(module.weight.norm(dim=1), torch.ones(6, dtype=module.weight.dtype))
    assert type(table(torch.tensor([1]))) is torch.Tensor


def test_what_cannot_be_is_named():
    with pytest.raises(ArgumentError, match="c=-1"):
        PoincareBall(-1.0)
    with pytest.raises(ArgumentError, match="data="):
        ManifoldParameter(torch.zeros(3), Stiefel())
    with pytest.raises(UnsupportedError, match="no origin"):
        Sphere().log_origin(torch.ones(1, 2))
