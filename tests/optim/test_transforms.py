"""Transforms of the whole gradient: clipping, noise; the constraint of a step; steps that are not taken."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError
from covector.optim import SGD, AdamW, Box, ClipNorm, GradientNoise


def two(dtype=torch.float32):
    return [nn.Parameter(torch.ones(3, dtype=dtype)), nn.Parameter(torch.ones(2, 2, dtype=dtype))]


@pytest.mark.parametrize("norm", [0.5, 3.0, 100.0])
def test_clipping_is_torch_s_up_to_its_epsilon(norm):
    ours, theirs = two(torch.float64), two(torch.float64)
    for params in (ours, theirs):
        for p in params:
            p.grad = torch.linspace(-2, 3, p.numel(), dtype=torch.float64).reshape(p.shape)
    SGD(ours, lr=1.0, transforms=[ClipNorm(norm)]).step()
    torch.nn.utils.clip_grad_norm_(theirs, norm)
    torch.optim.SGD(theirs, lr=1.0).step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0.0)


def test_a_clipped_gradient_has_the_norm_and_is_not_written():
    params = two()
    for p in params:
        p.grad = torch.full_like(p, 7.0)
    updates = SGD(params, lr=1.0, transforms=[ClipNorm(0.25)]).update()
    assert math.sqrt(sum(float(u.square().sum()) for u in updates.values())) == pytest.approx(0.25, rel=1e-6)
    assert all(float(p.grad.min()) == 7.0 for p in params)


def test_the_norm_is_of_all_groups_together():
    params = two()
    for p in params:
        p.grad = torch.ones_like(p)
    clip = ClipNorm(1.0)
    SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=1.0, transforms=[clip]).step()
    assert float(clip.norm) == pytest.approx(math.sqrt(7.0))


def test_decay_within_the_gradient_is_clipped_with_it():
    p = nn.Parameter(torch.tensor([3.0, 0.0]))
    p.grad = torch.tensor([0.0, 4.0])
    clip = ClipNorm(1e9)
    SGD([p], lr=1.0, weight_decay=1.0, transforms=[clip]).step()
    assert float(clip.norm) == pytest.approx(5.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_step_with_a_gradient_that_is_not_finite_changes_nothing(bad, policy):
    params = two()
    clip = ClipNorm(1.0, on_nonfinite=policy)
    optimizer = AdamW(params, transforms=[clip])
    for count in range(2):
        before, state = copy.deepcopy(params), str(optimizer.state_dict())
        for p in params:
            p.grad = torch.full_like(p, bad)
        if policy == "raise":
            with pytest.raises(NonFiniteError, match="norm of the gradients"):
                optimizer.step()
        else:
            optimizer.step()
            assert optimizer.update() == {}
            assert clip.skipped == 2 * (count + 1)
        assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
        assert str(optimizer.state_dict()) == state
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert optimizer.state[params[0]]["step"] == 2


def test_shrinking_takes_parameters_of_matrices_for_gradients():
    params = two()
    for p in params:
        p.grad = torch.full_like(p, math.nan)
    SGD(params, lr=0.5, transforms=[ClipNorm(1.0, on_nonfinite="shrink")]).step()
    assert torch.equal(params[0], torch.ones(3))
    torch.testing.assert_close(params[1].detach(), torch.full((2, 2), 0.99))


@pytest.mark.parametrize(
    "options",
    [{"max_norm": 0.0}, {"max_norm": 1.0, "on_nonfinite": "ignore"}, {"max_norm": 1.0, "shrink": 1.0}],
    ids=str,
)
def test_a_clip_that_cannot_work_is_refused(options):
    with pytest.raises(ArgumentError):
        ClipNorm(**options)


def test_noise_has_its_variance_fades_and_repeats():
    def updates(seed):
        p = nn.Parameter(torch.zeros(20_000))
        optimizer = SGD([p], lr=1.0, transforms=[GradientNoise(eta=0.3, gamma=0.55, seed=seed)])
        seen = []
        for _ in range(6):
            p.grad = torch.zeros_like(p)
            seen.append(optimizer.update()[p])
        return seen

    first, again, other = updates(1), updates(1), updates(2)
    for t, update in enumerate(first, start=1):
        assert float(update.var()) == pytest.approx(0.3 / (1 + t) ** 0.55, rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert abs(float(torch.corrcoef(torch.stack([first[0], other[0]]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([first[0], first[1]]))[0, 1])) < 0.03


def test_noise_after_clipping_is_not_clipped():
    p = nn.Parameter(torch.zeros(5000))
    p.grad = torch.full((5000,), 1e6)
    update = SGD([p], lr=1.0, transforms=[ClipNorm(1e-3), GradientNoise(eta=1.0, gamma=0.0)]).update()[p]
    assert float(update.std()) == pytest.approx(1.0, rel=0.05)


def test_a_constraint_holds_after_a_step_and_in_an_update():
    for make in (SGD, AdamW):
        stepped, valued = two(), two()
        for params in (stepped, valued):
            for p in params:
                p.grad = torch.full_like(p, -1.0)
        make(stepped, lr=0.7, constraint=Box(-1.0, 1.25)).step()
        optimizer = make(valued, lr=0.7, constraint=Box(-1.0, 1.25))
        optimizer.apply(optimizer.update())
        for a, b in zip(stepped, valued, strict=True):
            assert torch.equal(a, torch.full_like(a, 1.25))
            assert torch.equal(a, b)


def test_an_empty_box_is_refused():
    with pytest.raises(ArgumentError, match="upper"):
        Box(1.0, -1.0)
