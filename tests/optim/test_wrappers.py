"""Optimizers around optimizers: identities, saved states, and what they share with the inner one."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from covector.errors import ArgumentError, CompositionError
from covector.optim import (
    SGD,
    AdamW,
    Averaged,
    FadingMirrorDescent,
    Lookahead,
    RandomScaling,
    ScheduleFree,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)
from covector.optim.schedules import rates

WRAPPED = {
    "scaling": lambda params: RandomScaling(SGD(params, lr=0.05, momentum=0.9), seed=3),
    "uniform": lambda params: RandomScaling(AdamW(params, lr=0.01), "uniform", seed=3),
    "averaged": lambda params: Averaged(SGD(params, lr=0.05), decay=0.9),
    "lookahead": lambda params: Lookahead(AdamW(params, lr=0.05), k=3),
    "free": lambda params: ScheduleFree(SGD(params, lr=0.05)),
    "nested": lambda params: Averaged(Lookahead(RandomScaling(AdamW(params, lr=0.05)), k=2), decay=0.5),
}
every = pytest.mark.parametrize("name", WRAPPED)


@every
def test_a_step_is_an_update_that_is_applied(paths, name):
    params = paths.start()
    optimizer = WRAPPED[name](params)
    for t in range(20):
        for p in params:
            p.grad = paths.gradient(p, t)
        before = [p.detach().clone() for p in params]
        updates = optimizer.update()
        assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
        optimizer.apply(updates)
        assert all(torch.equal(p, b + updates[p]) for p, b in zip(params, before, strict=True))
    assert paths.distance([p.detach() for p in params], paths.run(WRAPPED[name], 20)) == 0.0


@every
def test_a_resumed_run_is_the_same_bit_for_bit(paths, name):
    whole = paths.run(WRAPPED[name], 30)
    params = paths.start()
    optimizer = WRAPPED[name](params)
    for t in range(30):
        if t == 13:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = WRAPPED[name](params)
            optimizer.load_state_dict(saved)
        for p in params:
            p.grad = paths.gradient(p, t)
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, whole, strict=True))


@every
def test_bfloat16_parameters_have_wrappers_states_in_float32(paths, name):
    params = paths.start(torch.bfloat16)
    optimizer = WRAPPED[name](params)
    for t in range(4):
        for p in params:
            p.grad = paths.gradient(p, t)
        optimizer.step()
    tensors = [v for p in params for v in optimizer.state[p].values() if isinstance(v, torch.Tensor)]
    assert all(v.dtype == torch.float32 for v in tensors)
    assert all(p.dtype == torch.bfloat16 and bool(p.isfinite().all()) for p in params)


@every
def test_a_scheduler_of_the_wrapper_drives_the_inner_optimizer(paths, name):
    params = paths.start()
    optimizer = WRAPPED[name](params)
    scheduler = LambdaLR(optimizer, lambda t: 0.5**t)
    rate = optimizer.param_groups[0]["lr"]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    scheduler.step()
    assert optimizer.inner.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.5 * rate
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


def test_groups_that_are_added_reach_the_inner_optimizer():
    p, q = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = Lookahead(SGD([p], lr=1.0), k=1, alpha=1.0)
    optimizer.add_param_group({"params": [q], "lr": 2.0})
    p.grad = q.grad = torch.ones(1)
    optimizer.step()
    assert (p.item(), q.item()) == (-1.0, -2.0)
    assert len(optimizer.param_groups) == len(optimizer.inner.param_groups) == 2


def test_a_closure_gives_the_loss():
    p = nn.Parameter(torch.ones(1))
    optimizer = Averaged(SGD([p], lr=0.1))

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert p.item() == pytest.approx(0.8)


def test_what_steps_in_place_cannot_be_wrapped():
    with pytest.raises(CompositionError, match="in place"):
        Averaged(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))


# random scaling


def test_scales_are_exponential_and_one_for_all_parameters():
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    optimizer = RandomScaling(SGD([p, q], lr=1.0), seed=5)
    draws = torch.tensor([optimizer.draw(step) for step in range(4000)])
    assert float(draws.mean()) == pytest.approx(1.0, abs=0.06)
    assert float(draws.var()) == pytest.approx(1.0, abs=0.15)
    assert float((draws > 2).double().mean()) == pytest.approx(math.exp(-2), abs=0.02)
    for step in range(3):
        p.grad, q.grad = torch.ones(2), torch.full((1,), 3.0)
        updates = optimizer.update()
        assert float(updates[p][0]) == pytest.approx(-optimizer.draw(step), rel=1e-6)
        assert float(updates[q]) == pytest.approx(-3 * optimizer.draw(step), rel=1e-6)


def kinked(x):
    return x.abs() + 0.1 * (5 * x).sin()


def slope(x):
    return x.sign() + 0.5 * (5 * x).cos()


@pytest.mark.parametrize(("x", "d"), [(0.4, -1.0), (-0.3, 0.7), (1.0, -3.0)])
def test_the_identity_of_random_scaling_holds_without_smoothness(x, d):
    """By quadrature: E[f(x + s d) - f(x)] = E[f'(x + s d) d] for s ~ Exp(1), and not for other s without weights."""
    s = torch.arange(0.0, 40.0, 1e-5, dtype=torch.float64) + 5e-6
    at = x + s * d
    start = kinked(torch.tensor(x, dtype=torch.float64))
    density = torch.exp(-s)
    density = density / density.sum()
    left, right = float((density * (kinked(at) - start)).sum()), float((density * slope(at) * d).sum())
    assert left == pytest.approx(right, abs=1e-4)
    uniform = (s < 2.0).double() / (s < 2.0).sum()
    left, plain = float((uniform * (kinked(at) - start)).sum()), float((uniform * slope(at) * d).sum())
    weighted = float((uniform * (2.0 - s) * slope(at) * d).sum())
    assert left == pytest.approx(weighted, abs=1e-3)
    assert abs(left - plain) > 0.02


def test_on_a_linear_function_the_mean_trajectory_is_that_of_momentum():
    ends = []
    for seed in range(400):
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = RandomScaling(SGD([p], lr=1.0, momentum=0.5), seed=seed)
        for _ in range(5):
            p.grad = torch.ones_like(p)
            optimizer.step()
        ends.append(p.item())
    expected = -sum(2 * (1 - 0.5**t) for t in range(1, 6))
    deviation = math.sqrt(sum((2 * (1 - 0.5**t)) ** 2 for t in range(1, 6)) / 400)
    assert abs(sum(ends) / 400 - expected) < 4 * deviation


def test_uniform_scales_weigh_the_next_gradient():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = RandomScaling(SGD([p], lr=1.0), "uniform", seed=2)
    previous = 1.0
    for step in range(5):
        p.grad = torch.ones_like(p)
        s = optimizer.draw(step)
        assert 0.0 <= s < 2.0
        assert float(optimizer.update()[p]) == pytest.approx(-s * (2.0 - previous if step else 1.0), rel=1e-12)
        previous = s


def test_fading_mirror_descent_is_momentum(paths):
    lr, beta, mu = 0.02, 0.95, 0.5
    a = beta / (1 + lr * mu)
    ours = paths.run(lambda params: FadingMirrorDescent(params, lr=lr, beta=beta, mu=mu))
    # torch's momentum does not dampen its first step; from a zero gradient on, all do
    params = paths.start()
    theirs = torch.optim.SGD(params, lr=a * lr / (1 - a), momentum=a, dampening=a)
    for p in params:
        p.grad = torch.zeros_like(p)
    theirs.step()
    for t in range(200):
        for p in params:
            p.grad = paths.gradient(p, t)
        theirs.step()
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


# averaging, lookahead, schedule-free


def test_the_average_is_the_weighted_mean_of_all_iterates(paths):
    b, params = 0.9, paths.start()
    optimizer = Averaged(SGD(params, lr=0.1), decay=b)
    iterates = []
    for t in range(25):
        for p in params:
            p.grad = paths.gradient(p, t)
        optimizer.step()
        iterates.append(params[1].detach().clone())
    weights = torch.tensor([b ** (24 - t) for t in range(25)], dtype=torch.float64)
    expected = (weights[:, None, None] * torch.stack(iterates)).sum(0) / weights.sum()
    last = params[1].detach().clone()
    with optimizer.averaged():
        torch.testing.assert_close(params[1].detach(), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(params[1], last)


def test_parameters_return_from_the_average_after_an_error():
    p = nn.Parameter(torch.ones(1))
    optimizer = Averaged(SGD([p], lr=1.0))
    for _ in range(2):
        p.grad = torch.ones(1)
        optimizer.step()

    def evaluate():
        with optimizer.averaged():
            assert p.item() != -1.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate()
    assert p.item() == -1.0


def test_lookahead_is_its_algorithm(paths):
    k, alpha, lr = 5, 0.3, 0.05
    ours = paths.run(lambda params: Lookahead(SGD(params, lr=lr, momentum=0.9), k=k, alpha=alpha), 47)
    params = paths.start()
    fast, slow = torch.optim.SGD(params, lr=lr, momentum=0.9), [p.detach().clone() for p in params]
    for t in range(47):
        for p in params:
            p.grad = paths.gradient(p, t)
        fast.step()
        if (t + 1) % k == 0:
            for p, s in zip(params, slow, strict=True):
                s += alpha * (p.detach() - s)
                p.data.copy_(s)
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


def test_lookahead_that_goes_all_the_way_is_the_inner_optimizer(paths):
    ours = paths.run(lambda params: Lookahead(AdamW(params, lr=0.01), k=2, alpha=1.0))
    assert paths.distance(ours, paths.run(lambda params: AdamW(params, lr=0.01))) < 1e-12


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_schedule_free_is_its_three_sequences(paths, power):
    beta, lr = 0.9, 0.05
    params = paths.start()
    optimizer = ScheduleFree(SGD(params, lr=lr), beta=beta, power=power)
    scheduler = LambdaLR(optimizer, lambda t: min((t + 1) / 10, 1.0))
    z, x = [p.detach().clone() for p in params], [p.detach().clone() for p in params]
    total, peak = 0.0, 0.0
    for t in range(60):
        rate = lr * min((t + 1) / 10, 1.0)
        peak = max(peak, rate)
        weight = (t + 1) ** power * peak**2
        total += weight
        for i, p in enumerate(params):
            y = (1 - beta) * z[i] + beta * x[i]
            torch.testing.assert_close(p.detach(), y, rtol=1e-11, atol=1e-12)
            p.grad = paths.gradient(p, t)
            z[i] = z[i] - rate * paths.gradient(y, t)
            x[i] = (1 - weight / total) * x[i] + weight / total * z[i]
        optimizer.step()
        scheduler.step()
    with optimizer.averaged():
        for p, average in zip(params, x, strict=True):
            torch.testing.assert_close(p.detach(), average, rtol=1e-10, atol=1e-12)


def test_schedule_free_adamw_is_that_of_an_independent_implementation(paths):
    from pytorch_optimizer import ScheduleFreeAdamW

    options = {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-8}
    ours = paths.run(lambda params: ScheduleFree(AdamW(params, betas=(0.0, 0.99), **options), beta=0.9), 100)

    def independent(params):
        optimizer = ScheduleFreeAdamW(params, betas=(0.9, 0.99), **options)
        optimizer.train()
        return optimizer

    assert paths.distance(ours, paths.run(independent, 100)) < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: RandomScaling(inner, "normal"), lambda inner: Averaged(inner, decay=1.0), lambda inner: Lookahead(inner, k=0),
        lambda inner: Lookahead(inner, alpha=0.0), lambda inner: ScheduleFree(inner, beta=1.0), lambda inner: ScheduleFree(inner, power=-1.0),
        lambda inner: FadingMirrorDescent(inner.param_groups, beta=0.0),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(make):
    with pytest.raises(ArgumentError):
        make(SGD([nn.Parameter(torch.zeros(1))]))


# schedules


@pytest.mark.parametrize("make", [warmup_cosine, warmup_linear, warmup_stable_decay])
def test_schedules_rise_to_the_peak_and_end_at_the_floor(make):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = make(optimizer, steps=100, warmup=10, floor=0.1)
    seen = rates(scheduler, 130)
    assert seen[0] == 0.2
    assert seen[9] == seen[10] == max(seen) == 2.0
    assert all(a >= b for a, b in itertools.pairwise(seen[10:]))
    assert seen[100:] == [0.2] * 30
    assert seen[99] > 0.2
    for _ in range(50):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(seen[50])


def test_a_schedule_is_resumed_from_its_state():
    first = warmup_cosine(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), steps=20, warmup=4)
    for _ in range(9):
        first.optimizer.step()
        first.step()
    second = warmup_cosine(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), steps=20, warmup=4)
    second.load_state_dict(first.state_dict())
    assert second.last_epoch == first.last_epoch == 9


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 5, "warmup": 6}, {"steps": 5, "floor": 2.0}], ids=str)
def test_a_schedule_that_does_not_fit_is_refused(options):
    for make in (warmup_cosine, warmup_linear, warmup_stable_decay):
        with pytest.raises(ArgumentError):
            make(SGD([nn.Parameter(torch.zeros(1))]), **options)
