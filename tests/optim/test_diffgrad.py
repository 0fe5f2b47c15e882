"""diffGrad against an independent implementation, and the aliasing that its first published code suffered from."""

import pytest
import torch
from pytorch_optimizer import DiffGrad as Independent
from torch import nn

from covector.errors import ArgumentError
from covector.optim import Adam, DiffGrad


def test_two_hundred_steps_are_those_of_an_independent_implementation(paths):
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-12}
    ours = paths.run(lambda params: DiffGrad(params, **options))
    theirs = paths.run(lambda params: Independent(params, weight_decouple=False, **options))
    assert paths.distance(ours, theirs) < 1e-8


def test_the_previous_gradient_is_a_copy(paths):
    """A reference to the gradient's buffer would make the difference zero, and the method Adam with half the rate."""

    def follow(make, steps=60):
        params = paths.start()
        optimizer = make(params)
        for p in params:
            p.grad = torch.zeros_like(p)
        for t in range(steps):
            for p in params:
                p.grad.copy_(
                    3.0 * paths.gradient(p, t)
                )  # the same buffer each time, as zero_grad(set_to_none=False) has it
            optimizer.step()
        return [p.detach() for p in params]

    ours = follow(lambda params: DiffGrad(params, lr=1e-2, eps=1e-30))
    aliased = follow(lambda params: Adam(params, lr=5e-3, eps=1e-30))
    assert paths.distance(ours, aliased) > 1e-2


def test_gradients_that_do_not_change_are_stepped_at_half_the_rate():
    p, q = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    ours, adam = DiffGrad([p], lr=0.1, eps=1e-30), Adam([q], lr=0.05, eps=1e-30)
    for t in range(20):
        p.grad = q.grad = torch.tensor([1e-9, -2e-9, 3e-9], dtype=torch.float64) * (1 + t)
        ours.step()
        adam.step()
    torch.testing.assert_close(p, q, rtol=1e-7, atol=0.0)


def test_the_relative_form_does_not_depend_on_the_scale_of_the_loss():
    ends = []
    for scale in (1.0, 1e-4):
        p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = DiffGrad([p], lr=0.01, eps=0.0, scale="relative")
        for t in range(50):
            p.grad = scale * p.detach() * (1.0 + (t % 3))
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=0.0)


def test_an_unknown_scale_is_named():
    with pytest.raises(ArgumentError, match="scale"):
        DiffGrad([nn.Parameter(torch.zeros(1))], scale="none")
