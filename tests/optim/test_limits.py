"""One implementation, several configurations: the limits in which one published method is another."""

from __future__ import annotations

import torch
from torch import nn

from covector.optim import (
    AEGD,
    AEPG,
    SGD,
    AdaGradNorm,
    Adam,
    AdaMax,
    AdamNC,
    AdamW,
    AdEMAMix,
    AMSGrad,
    DiffGrad,
    InducedMetric,
    RandomScaling,
    Signum,
)


def test_ademamix_with_alpha_zero_is_adamw(paths):
    ours = paths.run(lambda params: AdEMAMix(params, lr=1e-2, alpha=0.0, weight_decay=0.1))
    assert paths.distance(ours, paths.run(lambda params: AdamW(params, lr=1e-2, weight_decay=0.1))) < 1e-12


def test_diffgrad_with_an_open_gate_is_adam(paths):
    """The gate opens for large changes: gradients that differ by 1e6 at each step, without eps, whose place differs."""

    ours, theirs = [paths.start(), paths.start()]
    for params, optimizer in ((ours, DiffGrad(ours, lr=1e-2, eps=0.0)), (theirs, Adam(theirs, lr=1e-2, eps=0.0))):
        for t in range(200):
            for p in params:
                p.grad = (paths.gradient(p, t) + 3.0 * (-1) ** t) * 1e6
            optimizer.step()
    assert paths.distance([p.detach() for p in ours], [p.detach() for p in theirs]) < 1e-12


def test_amsgrad_of_the_mean_square_is_adamnc_while_gradients_grow():
    """The maximum is idle as long as the mean square rises."""
    ends = []
    for make in (
        lambda p: AMSGrad(p, lr=0.1, betas=(0.9, 0.0), form="paper", sqrt_decay=True, second="mean"),
        lambda p: AdamNC(p, lr=0.1, b1=0.9),
    ):
        p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = make([p])
        for t in range(1, 101):
            p.grad = torch.tensor([1.0, -1.0], dtype=torch.float64) * (1.0 + 0.1 * t)
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=0.0)
    assert float((ends[0] - torch.tensor([1.0, -2.0])).abs().min()) > 0.1


def test_adam_without_memory_is_the_sign(paths):
    ours = paths.run(lambda params: Adam(params, lr=1e-2, betas=(0.0, 0.0), eps=0.0))
    theirs = paths.run(lambda params: Signum(params, lr=1e-2, momentum=0.0))
    assert paths.distance(ours, theirs) < 1e-12


def test_adamax_is_adam_in_the_norm_of_a_high_power():
    """v = EMA(b2^n)(|g|^n) with the n-th root: the root of 1 - b2^n is the only trace of the average, and goes to 1."""
    n, b1, b2, lr = 60, 0.9, 0.99, 1e-2
    ours = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = AdaMax([ours], lr=lr, betas=(b1, b2), form="paper")
    p, m, v = ours.detach().clone(), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t in range(1, 101):
        g = p * (1.0 + (t % 4))
        m, v = b1 * m + (1 - b1) * g, b2**n * v + (1 - b2**n) * g.abs() ** n
        p = p - lr / (1 - b1**t) * m / v ** (1 / n)
        ours.grad = ours.detach() * (1.0 + (t % 4))
        optimizer.step()
    torch.testing.assert_close(ours.detach(), p, rtol=0.02, atol=0.02)


def corrected_momentum(mu, lr):
    """SGDM whose momentum is a bias-corrected average, on torch's own SGD."""

    class Corrected(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, lr=lr)
            self.means = {p: torch.zeros_like(p) for p in params}
            self.t = 0

        def step(self):
            self.t += 1
            for p, m in self.means.items():
                m.mul_(mu).add_(p.grad, alpha=1 - mu)
                p.grad = m / (1 - mu**self.t)
            super().step()

    return Corrected


def test_the_induced_metric_without_xi_is_momentum_with_bias_correction(paths):
    for form in ("sgd", "rms"):
        flat = paths.run(lambda params, form=form: InducedMetric(params, lr=0.05, xi=0.0, form=form))
        other = (
            corrected_momentum(0.9, 0.05) if form == "sgd" else lambda params: Adam(params, lr=0.05, betas=(0.9, 0.99))
        )
        assert paths.distance(flat, paths.run(other)) < 1e-12


def test_random_scaling_by_nothing_is_momentum(paths):
    ours = paths.run(lambda params: RandomScaling(SGD(params, lr=0.05, momentum=0.9, dampening=0.9), distribution=None))
    theirs = paths.run(lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.9))
    assert paths.distance(ours, theirs) < 1e-12


def test_adagrad_norm_on_one_scalar_is_torch_s_adagrad(paths):
    ours, theirs = (nn.Parameter(torch.tensor(2.0, dtype=torch.float64)) for _ in range(2))
    pair = (
        (ours, AdaGradNorm([ours], lr=0.3, b0=0.5)),
        (theirs, torch.optim.Adagrad([theirs], lr=0.3, initial_accumulator_value=0.25, eps=0.0)),
    )
    for p, optimizer in pair:
        for t in range(200):
            p.grad = paths.gradient(p, t)
            optimizer.step()
    assert abs(float(ours - theirs)) < 1e-12
    assert abs(float(ours) - 2.0) > 0.1


def test_aegd_in_one_dimension_is_aepg():
    ends = []
    for make in (AEGD, AEPG):
        p = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimizer = make([p], lr=0.2)
        for _ in range(50):
            p.grad = p.detach().clone()
            optimizer.step(loss=float(p.detach() ** 2 / 2))
        ends.append(p.item())
    assert abs(ends[0] - ends[1]) < 1e-12
    assert ends[0] < 1.9
