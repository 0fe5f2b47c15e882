"""PSGD in training: every structure, whitened directions, Newton's pairs, and what its state goes through."""

import copy
import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, UnsupportedError
from covector.optim import PSGD, HessianFitter, fading_updates
from covector.optim.fit_geometry import GEOMETRIES
from covector.optim.psgd_step import clip_whitened, joined_shape
from covector.optim.update_schedule import share_at

DOUBLE = torch.float64
STRUCTURES = ("kron", "dense", "lra", "diag")


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=generator, dtype=DOUBLE), torch.randint(0, 3, (16,), generator=generator)


def train(net, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x, y = batch(step % 4)
        loss = optimizer.step(lambda x=x, y=y: nn.functional.cross_entropy(net(x), y))
    return float(loss.detach())


def backward(net, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x, y = batch(step % 4)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def values(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("pair", ["whiten", "newton"])
def test_every_structure_learns_and_resumes_bit_for_bit(structure, pair):
    run = train if pair == "newton" else backward
    make = {"structure": structure, "pair": pair, "lr": 0.05, "update_probability": 0.7, "rank": 3, "clip_norm": 5.0}
    net, other = model(), model()
    optimizer = PSGD(net, **make)
    run(net, optimizer, 5)
    saved = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(net.state_dict())
    resumed = PSGD(other, **make)
    resumed.load_state_dict(saved)
    loss = run(net, optimizer, 60, first=5)
    run(other, resumed, 60, first=5)
    assert torch.equal(values(net), values(other))
    assert loss < 0.9


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_learns(geometry):
    net = model()
    assert backward(net, PSGD(net, lr=0.02, geometry=geometry), 60) < 1.04


def test_it_is_the_fitter_on_each_tensor():
    """Up to the rows that bound a norm: -lr P g, with the P of a fitter that saw the same pairs."""
    p = nn.Parameter(torch.zeros(4, 5, dtype=DOUBLE))
    options = {"geometry": "EQ", "scale": 1.0, "damping": 0.0}
    optimizer = PSGD([p], lr=0.1, momentum=0.0, fit_lr=0.2, clip=(1e9, 1e9), max_skew=4.0, pair="newton", **options)
    fitter = HessianFitter("kron", lr=0.2, max_skew=4.0, **options)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(4, 5, generator=generator, dtype=DOUBLE) + 0.5
    seen = []
    original = optimizer.slots["plain"].maps[0].fit.update

    def watch(states, v, h, lr, noise):
        seen.append((v[0].clone(), h[0].clone()))
        return original(states, v, h, lr, noise)

    object.__setattr__(optimizer.slots["plain"].maps[0].fit, "update", watch)
    for _ in range(5):
        updates = optimizer.update(lambda: (weights * (p + 1).square()).sum() / 2)
        v, h = seen[-1]
        torch.testing.assert_close(h, weights * v)
        fitter.update(v, h)
        torch.testing.assert_close(updates[p], -0.1 * fitter.apply(p.grad), rtol=1e-2, atol=1e-3)
        optimizer.apply(updates)


def test_tensors_of_one_shape_step_as_each_would_alone():
    """Nothing is drawn by the batch but the rows that bound a norm, which tensors of one shape share."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(3, 4, generator=generator, dtype=DOUBLE) for _ in range(3)]
    options = {"lr": 0.1, "scale": 1.0, "damping": 0.0, "clip": (1e9, 1e9)}
    together = [nn.Parameter(torch.zeros(3, 4, dtype=DOUBLE)) for _ in grads]
    alone = [nn.Parameter(torch.zeros(3, 4, dtype=DOUBLE)) for _ in grads]
    one = PSGD(together, **options)
    others = [PSGD([p], **options) for p in alone]
    for _ in range(4):
        for p, q, g in zip(together, alone, grads, strict=True):
            p.grad, q.grad = g * (1 + p.detach()), g * (1 + q.detach())
        one.step()
        for other in others:
            other.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_whitened_directions_do_not_depend_on_the_scale_of_the_loss():
    for structure in STRUCTURES:
        ends = []
        for scale in (1.0, 1e4):
            net = model()
            optimizer = PSGD(net, lr=0.01, structure=structure, damping=0.0, rank=3)
            for step in range(20):
                x, y = batch(step)
                optimizer.zero_grad()
                (scale * nn.functional.cross_entropy(net(x), y)).backward()
                optimizer.step()
            ends.append(values(net))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-8)


def test_a_curved_valley_is_crossed_without_a_line_search():
    x = nn.Parameter(torch.zeros(10, dtype=DOUBLE))
    optimizer = PSGD([x], lr=1.0, structure="dense", pair="newton", fit_lr=0.5)
    for _ in range(500):
        loss = optimizer.step(lambda: (100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2).sum())
    assert float(loss.detach()) < 1e-2


def test_a_closure_that_calls_backward_serves_newton_s_pairs_by_differences():
    ends = []
    for calls_backward in (False, True):
        net = model()
        optimizer = PSGD(net, lr=0.05, pair="newton", structure="lra", rank=2)
        for step in range(6):
            x, y = batch(step)

            def closure(x=x, y=y, net=net, optimizer=optimizer, calls_backward=calls_backward):
                loss = nn.functional.cross_entropy(net(x), y)
                if calls_backward:
                    optimizer.zero_grad()
                    loss.backward()
                return loss

            optimizer.step(closure)
        ends.append(values(net))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_newton_s_pairs_need_a_closure():
    net = model()
    optimizer = PSGD(net, pair="newton")
    nn.functional.cross_entropy(net(batch(0)[0]), batch(0)[1]).backward()
    before = str(optimizer.state_dict())
    with pytest.raises(ArgumentError, match=r"closure=None.*step\(closure\)"):
        optimizer.step()
    assert str(optimizer.state_dict()) == before


def test_products_are_taken_only_where_the_preconditioner_is_renewed():
    x = nn.Parameter(torch.ones(3, dtype=DOUBLE))
    optimizer = PSGD([x], structure="dense", pair="newton", update_probability=0.25)
    changed = []
    for _ in range(12):
        before = optimizer.state[x].get("q0", torch.zeros(3, 3)).clone()
        optimizer.step(lambda: (x**2).sum())
        changed.append(not torch.equal(before, optimizer.state[x]["q0"]))
    assert changed[0]
    assert sum(changed) == 3
    assert [share_at(fading_updates(), t) for t in (1, 500)] == [1.0, 1.0]


def test_where_other_parameters_step_together_a_dense_fit_begins_anew():
    p, q = nn.Parameter(torch.ones(2, dtype=DOUBLE)), nn.Parameter(torch.ones(3, dtype=DOUBLE))
    optimizer = PSGD([p, q], structure="dense")
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer.step()
    assert optimizer.state[p]["q0"].shape == (2, 5)
    q.grad = None
    optimizer.step()
    assert optimizer.state[p]["q0"].shape == (2, 2)
    assert bool(p.isfinite().all())


def test_shapes_are_joined_and_long_axes_are_diagonal():
    assert joined_shape((8, 1, 3, 3), 9) == (8, 9)
    p = nn.Parameter(torch.zeros(16, 2, 3, 3))
    p.grad = torch.randn_like(p)
    optimizer = PSGD([p], merge=18)
    optimizer.step()
    assert [tuple(optimizer.state[p][name].shape) for name in ("q0", "q1")] == [(16, 16), (18,)]
    flat = PSGD([p], max_skew=0.0)
    flat.step()
    assert {flat.state[p][f"q{axis}"].ndim for axis in range(4)} == {1}


def test_the_first_scale_suits_the_gradients():
    p = nn.Parameter(torch.zeros(50, 40))
    p.grad = 1e-3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    update = PSGD([p], lr=1.0, momentum=0.0).update()[p]
    assert 0.3 < float(update.square().mean().sqrt()) < 1.5


def test_clipping_bounds_the_mean_square_then_the_entries():
    x = torch.zeros(1, 100)
    x[0, 0] = 1000.0
    clipped = clip_whitened(x, 2.0, 10.0)
    assert float(clipped.max()) == 10.0
    assert float(clip_whitened(x, 2.0, math.inf).square().mean().sqrt()) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "options",
    [
        {"pair": "hessian"}, {"whiten": "all"}, {"fit_lr": 0.0}, {"update_probability": 0.0}, {"clip": (0.0, 1.0)},
        {"clip_norm": 0.0}, {"momentum": 1.0}, {"structure": "blocks"}, {"balance_every": 0},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_are_named(options):
    with pytest.raises(ArgumentError, match=list(options)[-1]):
        PSGD([nn.Parameter(torch.zeros(2))], **options)
    with pytest.raises(UnsupportedError, match="capturable"):
        PSGD([nn.Parameter(torch.zeros(2))], capturable=True)
