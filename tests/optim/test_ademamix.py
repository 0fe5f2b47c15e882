"""AdEMAMix against an independent implementation, its warm-ups in closed form, and its limits of memory."""

import math

import pytest
import torch
from pytorch_optimizer import AdEMAMix as Independent
from torch import nn

from covector.errors import ArgumentError
from covector.optim import AdEMAMix
from covector.optim.ademamix import slow_decay


@pytest.mark.parametrize("warmup", [None, 50, 1000])
def test_two_hundred_steps_are_those_of_an_independent_implementation(paths, warmup):
    options = {"lr": 1e-2, "betas": (0.9, 0.99, 0.9999), "alpha": 5.0, "weight_decay": 0.1}
    ours = paths.run(lambda params: AdEMAMix(params, warmup_steps=warmup, **options))
    theirs = paths.run(lambda params: Independent(params, t_alpha_beta3=warmup, weight_decouple=True, **options))
    assert paths.distance(ours, theirs) < 1e-6


@pytest.mark.parametrize(("b1", "b3"), [(0.9, 0.9999), (0.5, 0.99), (0.9, 0.9)])
def test_the_half_life_of_the_slow_average_grows_linearly(b1, b3):
    def half_life(b):
        return math.log(0.5) / math.log(b)

    for share in (0.0, 0.25, 0.7, 1.0):
        expected = (1 - share) * half_life(b1) + share * half_life(b3)
        assert half_life(slow_decay(share, b1, b3)) == pytest.approx(expected, rel=1e-9)
    decay = slow_decay(torch.tensor(0.25, dtype=torch.float64), b1, b3)
    assert float(decay) == pytest.approx(slow_decay(0.25, b1, b3), rel=1e-14)


def test_equal_averages_without_warm_up_are_one_average(paths):
    """Numerator m1 / (1 - b1^t) + alpha m1, as the card of the method says."""
    b1, b2, alpha, lr, eps = 0.9, 0.99, 3.0, 1e-2, 1e-8
    ours = paths.run(lambda params: AdEMAMix(params, lr=lr, betas=(b1, b2, b1), alpha=alpha), steps=50)
    params = paths.start()
    m, v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    for t in range(1, 51):
        for i, p in enumerate(params):
            g = paths.gradient(p, t - 1)
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * g * g
            p.data.sub_(lr * (m[i] / (1 - b1**t) + alpha * m[i]) / ((v[i] / (1 - b2**t)).sqrt() + eps))
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


def test_without_a_fast_average_two_tensors_are_kept_and_the_steps_are_the_same(paths):
    kept = nn.Parameter(torch.zeros(2))
    optimizer = AdEMAMix([kept], betas=(0.0, 0.99, 0.999))
    kept.grad = torch.ones(2)
    optimizer.step()
    assert set(optimizer.state[kept]) == {"step", "exp_avg_slow", "exp_avg_sq"}
    slow = paths.run(lambda params: AdEMAMix(params, lr=1e-2, betas=(0.0, 0.99, 0.999)))
    full = paths.run(
        lambda params: AdEMAMix([{"params": params, "slots": "default"}], lr=1e-2, betas=(0.0, 0.99, 0.999))
    )
    assert paths.distance(slow, full) < 1e-12


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"betas": (0.9, 0.99)}, "betas"),
        ({"betas": (0.9, 0.99, 0.5)}, "betas"),
        ({"alpha": -1.0}, "alpha"),
        ({"warmup_steps": 0}, "warmup_steps"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(options, argument):
    with pytest.raises(ArgumentError, match=argument):
        AdEMAMix([nn.Parameter(torch.zeros(1))], **options)
