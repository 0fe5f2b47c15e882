"""Adam in a subspace: against a plain loop, in its limits, and the laws of transport and recovery."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError
from covector.optim import Adam, GaLore, GradientSubspace, GrassJump, GrassWalk, Optimizer, Rule, Slots, SubspaceAdam
from covector.optim.adam import ADAM
from covector.optim.grassmann import random_point
from covector.optim.subspace import transport

F64 = torch.float64
BETAS, EPS = (0.9, 0.99), 1e-6


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def run(optimizer, params, gradients):
    for step in gradients:
        for param, grad in zip(params, step, strict=True):
            param.grad = grad.clone()
        optimizer.step()


def loop(w, gradients, optimizer, rank, interval, lr, adaptive, recover, growth=1.01, scale=1.0):
    """The method as it is published, one wide matrix, with the renewal of ``optimizer``'s basis."""
    basis = optimizer.slots["subspace"].basis
    w, m, v, s, before = w.clone(), None, None, None, None
    b1, b2 = BETAS
    for t, g in enumerate(gradients, start=1):
        if s is None:
            s = torch.linalg.svd(g)[0][:, :rank]
            m = v = torch.zeros(rank, g.shape[1], dtype=F64)
        elif (t - 1) % interval == 0:
            fresh = basis.renewed(s, g, f"0:{g.shape[0]}x{g.shape[1]}", t)
            if adaptive:
                c = fresh.T @ s
                mean, square = m / (1 - b1 ** (t - 1)), v / (1 - b2 ** (t - 1))
                m = c @ m
                v = (1 - b2 ** (t - 1)) * ((c**2) @ (square - mean**2) + (c @ mean) ** 2).abs()
            s = fresh
        a = s.T @ g
        m, v = b1 * m + (1 - b1) * a, b2 * v + (1 - b2) * a**2
        o = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + EPS)
        update = scale * (s @ o)
        if recover:
            outside = (g - s @ a) * (o.norm(dim=0) / (a.norm(dim=0) + 1e-8))
            if before is not None and outside.norm() > growth * before:
                outside *= growth * before / outside.norm()
            before = outside.norm()
            update = update + outside
        w -= lr * update
    return w


@pytest.mark.parametrize("update", ["svd", "walk", "jump", "track"])
@pytest.mark.parametrize(("adaptive", "recover", "scale"), [(True, True, 1.0), (False, False, 0.25), (True, True, 0.5)])
def test_steps_are_those_of_the_published_loop(update, adaptive, recover, scale):
    w = numbers(6, 11)
    gradients = [numbers(6, 11, seed=i) for i in range(1, 14)]
    p = nn.Parameter(w.clone())
    optimizer = SubspaceAdam(
        [p], 0.1, rank=3, update=update, interval=4, adaptive=adaptive, recover=recover, scale=scale, betas=BETAS
    )
    run(optimizer, [p], [[g] for g in gradients])
    expected = loop(w, gradients, optimizer, 3, 4, 0.1, adaptive, recover, scale=scale)
    # the first basis is unique up to signs only, of which nothing depends
    torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("preset", [GrassWalk, GrassJump, GaLore])
def test_the_whole_space_is_adam_in_a_rotated_basis(preset):
    w = numbers(4, 7)
    gradients = [numbers(4, 7, seed=i) for i in range(1, 10)]
    p = nn.Parameter(w.clone())
    run(preset([p], 0.1, rank=4, interval=3, betas=BETAS, scale=1.0), [p], [[g] for g in gradients])
    q = torch.linalg.svd(gradients[0])[0]
    rotated = nn.Parameter(q.T @ w)
    run(Adam([rotated], 0.1, BETAS, EPS), [rotated], [[q.T @ g] for g in gradients])
    torch.testing.assert_close(p.detach(), q @ rotated.detach(), rtol=1e-10, atol=1e-12)


class Relabel(GradientSubspace):
    """Renews the basis by other names and signs for the same directions."""

    def renewed(self, s, gradient, place, step):
        return s[:, [2, 0, 1]] * torch.tensor([1.0, -1.0, -1.0], dtype=s.dtype)


def test_transport_makes_steps_independent_of_the_names_of_the_directions():
    gradients = [[numbers(6, 9, seed=i)] for i in range(1, 13)]
    ends = []
    for interval in (3, 1000):
        p = nn.Parameter(numbers(6, 9))
        basis = Relabel(3, "svd", interval)
        run(Optimizer([p], Slots(ADAM, basis=basis), 0.1, betas=BETAS, eps=EPS), [p], gradients)
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-13)


def test_transport_by_a_permutation_permutes_exactly():
    order = [3, 0, 2, 1]
    change = torch.eye(4)[order]
    mean = torch.tensor([[0.5], [-1.0], [2.0], [0.0]])
    square = torch.tensor([[1.0], [1.5], [4.0], [0.25]])
    moved = transport(change, mean, square)
    assert torch.equal(moved[0], mean[order])
    assert torch.equal(moved[1], square[order])


def test_transport_is_exact_for_independent_coordinates():
    c = random_point(numbers(5, 5)).T[:3]
    mean, variance = numbers(5, 1, seed=1), numbers(5, 1, seed=2).square()
    moved, square = transport(c, mean, variance + mean.square())
    covariance = c @ torch.diag(variance[:, 0]) @ c.T
    torch.testing.assert_close(moved, c @ mean)
    torch.testing.assert_close(square[:, 0], covariance.diagonal() + (c @ mean)[:, 0].square())


def test_states_of_another_rule_are_transported_as_linear_ones():
    heavy = Rule(lambda g, u, mu: (mu * u + g, mu * u + g), ("momentum_buffer",), lambda t, group: (group["momentum"],))
    gradients = [[numbers(6, 9, seed=i)] for i in range(1, 9)]
    p = nn.Parameter(numbers(6, 9))
    basis = Relabel(3, "svd", 2, recover=False)
    run(Optimizer([p], Slots(heavy, basis=basis), 0.1, momentum=0.9), [p], gradients)
    q = nn.Parameter(numbers(6, 9))
    run(
        torch.optim.SGD([q], 0.1, momentum=0.9), [q], [[s @ (s.T @ g)] for [g] in gradients for s in [first(gradients)]]
    )
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-11, atol=1e-12)


def first(gradients):
    return torch.linalg.svd(gradients[0][0])[0][:, :3]


def test_recovery_of_a_frozen_direction_is_descent_at_the_scale_found_inside():
    g = numbers(5, 8, seed=1)
    p = nn.Parameter(torch.zeros(5, 8, dtype=F64))
    optimizer = GrassJump([p], 1.0, rank=2)
    p.grad = g
    s = torch.linalg.svd(g)[0][:, :2]
    update = optimizer.update()[p]
    outside = g - s @ (s.T @ g)
    ratio = (update - s @ (s.T @ update)) / outside
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-8, atol=1e-10)
    inside = (s.T @ update).norm(dim=0) / (s.T @ g).norm(dim=0)
    torch.testing.assert_close(-ratio[0], inside, rtol=1e-6, atol=1e-8)


def test_the_recovered_part_grows_by_at_most_the_limit_and_recovers_from_zero():
    p = nn.Parameter(torch.zeros(5, 8, dtype=F64))
    optimizer = GrassWalk([p], 0.1, rank=2, interval=3)
    norms = []
    for i in range(12):
        p.grad = numbers(5, 8, seed=i) * (100.0 if i == 6 else 0.0 if i == 9 else 1.0)
        optimizer.step()
        norms.append(float(optimizer.state[p]["residual_norm"]))
    grown = [after / before for before, after in pairwise(norms) if before > 0]
    assert max(grown) <= 1.01 + 1e-12
    assert norms[9] == 0
    assert norms[10] > 0


@pytest.mark.parametrize("update", ["svd", "walk", "jump", "track"])
def test_the_basis_is_orthonormal_after_every_renewal(update):
    p = nn.Parameter(numbers(12, 20).float())
    optimizer = SubspaceAdam([p], 0.01, rank=4, update=update, interval=2)
    for i in range(30):
        p.grad = numbers(12, 20, seed=i).float()
        optimizer.step()
        s = optimizer.state[p]["subspace"]
        assert float((s.T @ s - torch.eye(4)).abs().max()) < 2e-6


@pytest.mark.parametrize("preset", [GrassWalk, GrassJump, GaLore])
def test_a_tall_matrix_steps_as_its_transpose_does(preset):
    gradients = [numbers(9, 5, seed=i) for i in range(1, 8)]
    tall, wide = nn.Parameter(numbers(9, 5)), nn.Parameter(numbers(9, 5).T.contiguous())
    same = {"rank": 2, "interval": 1000}  # a random renewal depends on the shape
    run(preset([tall], 0.1, **same), [tall], [[g] for g in gradients])
    run(preset([wide], 0.1, **same), [wide], [[g.T] for g in gradients])
    torch.testing.assert_close(tall.detach(), wide.detach().T, rtol=1e-9, atol=1e-11)


def test_a_convolution_steps_as_the_matrix_of_its_filters():
    gradients = [numbers(4, 3, 3, 3, seed=i) for i in range(1, 6)]
    kernel, matrix = nn.Parameter(numbers(4, 3, 3, 3)), nn.Parameter(numbers(4, 3, 3, 3).flatten(1))
    run(GaLore([kernel], 0.1, rank=2, interval=2), [kernel], [[g] for g in gradients])
    run(GaLore([matrix], 0.1, rank=2, interval=2), [matrix], [[g.flatten(1)] for g in gradients])
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach(), rtol=1e-12, atol=1e-13)


def test_the_states_of_a_matrix_are_as_small_as_promised():
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = GrassWalk(model, rank=4)
    model(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    sizes = {name: t.numel() for name, t in optimizer.state[model[0].weight].items() if isinstance(t, torch.Tensor)}
    assert sizes == {"subspace": 32 * 4, "exp_avg": 4 * 64, "exp_avg_sq": 4 * 64, "residual_norm": 1}
    assert optimizer.state[model[2].weight]["exp_avg"].shape == model[2].weight.shape


def test_what_is_not_a_hidden_matrix_steps_by_adam():
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    twin = copy.deepcopy(model)
    ours = GrassJump(model, lr=0.05, adam_lr=0.01, rank=2, betas=BETAS)
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01, betas=BETAS, eps=EPS)
    for i in range(5):
        for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
            p.grad = numbers(*p.shape, seed=i) + len(name)
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-14) == (name != "1.weight"), name


def test_random_subspaces_are_the_same_on_every_rank_and_differ_between_matrices():
    def bases(frozen):
        params = [nn.Parameter(numbers(6, 9)) for _ in range(3)]
        optimizer = GrassJump(params, rank=2, interval=1)
        for i in range(3):
            for k, p in enumerate(params):
                p.grad = None if k == frozen else numbers(6, 9, seed=10 * i + k)
            optimizer.step()
        return [optimizer.state[p].get("subspace") for p in params]

    one, other = bases(frozen=None), bases(frozen=0)
    assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
    assert not torch.allclose(one[1], one[2])


def test_a_coordinate_that_is_rounding_is_not_scaled_to_a_step():
    p = nn.Parameter(torch.zeros(6, 8))
    optimizer = GaLore([p], 1.0, rank=6, scale=1.0, eps=1e-12)
    null = torch.ones(6) / 6**0.5
    for i in range(3):
        g = numbers(6, 8, seed=i)
        p.grad = (g - g.mean(0)).float()  # no gradient along `null`, up to rounding
        optimizer.step()
    assert float((null @ p.detach()).abs().max()) < 1e-2 * float(p.detach().norm(dim=0).min())


def test_a_gradient_that_is_not_finite_is_named_where_a_basis_is_made_of_it():
    p = nn.Parameter(torch.zeros(4, 6))
    optimizer = GaLore([p], rank=2)
    p.grad = torch.full((4, 6), float("nan"))
    with pytest.raises(NonFiniteError, match="4, 6"):
        optimizer.step()
    assert torch.equal(p.detach(), torch.zeros(4, 6))


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"rank": 1.5}, {"interval": 0}, {"update": "run"}, {"angle": 0.0}, {"growth": 0.5}, {"scale": 0.0},
     {"betas": (1.0, 0.9)}, {"eps": -1.0}, {"capturable": True}],
    ids=str,
)  # fmt: skip
def test_a_bad_option_is_named(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=name):
        SubspaceAdam([nn.Parameter(torch.zeros(4, 6))], **options)
