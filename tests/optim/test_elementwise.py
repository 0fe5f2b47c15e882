"""The survey's algorithms against ``torch.optim``, against their equations written out, and their invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from covector import optim
from covector.errors import ArgumentError
from covector.optim.nadam import momentum_product

TORCH = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.4}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1, "momentum": 0.5}],
    "Adagrad": [{}, {"lr_decay": 0.01, "initial_accumulator_value": 0.3, "weight_decay": 0.1}],
    "Adadelta": [{"lr": 1.0}, {"lr": 0.7, "rho": 0.8, "weight_decay": 0.1}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True}, {"centered": True, "momentum": 0.5, "weight_decay": 0.1}],
    "Adamax": [{}, {"betas": (0.8, 0.9), "weight_decay": 0.1}],
    "NAdam": [{}, {"momentum_decay": 0.0}, {"weight_decay": 0.1, "betas": (0.8, 0.9), "momentum_decay": 0.1}],
    "Adam": [{}, {"weight_decay": 0.1, "betas": (0.8, 0.9)}],
    "AdamW": [{}, {"weight_decay": 0.1}],
}  # fmt: skip
OURS = {"Adamax": "AdaMax"}
CASES = [(name, options) for name, cases in TORCH.items() for options in cases]


@pytest.fixture
def double():
    """torch's NAdam keeps the product of its momenta in the default dtype, where float32 costs it eight digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("path", ["compiled", "foreach"])
def test_two_hundred_steps_are_those_of_torch(paths, double, name, options, path, monkeypatch):
    monkeypatch.setenv("COVECTOR_OPTIM", "foreach" if path == "foreach" else "")
    options = {"lr": 1e-2, **options}
    ours = paths.run(lambda params: getattr(optim, OURS.get(name, name))(params, **options))
    theirs = paths.run(lambda params: getattr(torch.optim, name)(params, **options))
    assert paths.distance(ours, theirs) < 1e-12


def test_decoupled_decay_of_nadam_is_that_of_torch(paths, double):
    ours = paths.run(lambda params: optim.NAdam(params, lr=1e-2, weight_decay=0.1, decoupled=True))
    theirs = paths.run(lambda params: torch.optim.NAdam(params, lr=1e-2, weight_decay=0.1, decoupled_weight_decay=True))
    assert paths.distance(ours, theirs) < 1e-12


PAPER = {
    "SGD": ({"lr": 0.01, "momentum": 0.9}, lambda g, s, t, lr: s.__setitem__(0, 0.9 * s[0] + lr * g) or s[0]),
    "Adagrad": ({"lr": 0.01, "eps": 1e-8}, lambda g, s, t, lr: s.__setitem__(0, s[0] + g * g) or lr * g / (s[0] + 1e-8).sqrt()),
    "RMSprop": (
        {"lr": 0.001, "alpha": 0.9, "eps": 1e-8},
        lambda g, s, t, lr: s.__setitem__(0, 0.9 * s[0] + 0.1 * g * g) or lr * g / (s[0] + 1e-8).sqrt(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_form_is_its_equation(paths, name):
    options, equation = PAPER[name]
    params, states = paths.start(), [[torch.zeros_like(p)] for p in paths.start()]
    ours = paths.run(lambda params: getattr(optim, name)(params, form="paper", **options))
    for t in range(200):
        steps = [
            equation(paths.gradient(p, t), state, t + 1, options["lr"]) for p, state in zip(params, states, strict=True)
        ]
        for p, step in zip(params, steps, strict=True):
            p.data.sub_(step)
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


@pytest.mark.parametrize("kind", ["adamax", "nadam"])
def test_the_survey_s_adam_variants_are_their_equations(paths, kind):
    b1, b2, lr, eps = 0.9, 0.99, 2e-3, 1e-8
    make = optim.AdaMax if kind == "adamax" else optim.NAdam
    ours = paths.run(lambda params: make(params, lr=lr, betas=(b1, b2), form="paper"))
    params = paths.start()
    m, v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    for t in range(1, 201):
        grads = [paths.gradient(p, t - 1) for p in params]
        for i, g in enumerate(grads):
            m[i] = b1 * m[i] + (1 - b1) * g
            if kind == "adamax":
                v[i] = torch.maximum(b2 * v[i], g.abs())
                step = lr / (1 - b1**t) * m[i] / v[i]
            else:
                v[i] = b2 * v[i] + (1 - b2) * g * g
                step = lr / ((v[i] / (1 - b2**t)).sqrt() + eps) * (b1 * m[i] / (1 - b1**t) + (1 - b1) * g / (1 - b1**t))
            params[i].data.sub_(step)
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


def test_momentum_in_the_paper_s_form_does_not_rescale_with_the_learning_rate():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optim.SGD([p], lr=1.0, momentum=0.5, form="paper")
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert p.item() == -1.5


@pytest.mark.parametrize("form", ["torch", "paper"])
def test_nesterov_s_parameters_are_the_look_ahead_point_of_the_survey(form):
    mu, lr = 0.9, 0.02
    slope = torch.tensor([1.0, 7.0], dtype=torch.float64)
    ours = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimizer = optim.SGD([ours], lr=lr, momentum=mu, nesterov=True, form=form)
    p, u = ours.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for _ in range(50):
        ours.grad = slope * ours.detach().sin()
        optimizer.step()
        u = mu * u + lr * slope * (p - mu * u).sin()
        p = p - u
        assert float((ours - (p - mu * u)).abs().max()) < 1e-14


def test_adadelta_does_not_depend_on_the_unit_of_its_parameters():
    """In the limit of a small eps; with an eps of the parameters' own square the trajectory scales exactly."""
    ends = []
    for unit in (1.0, 1000.0):
        p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64) * unit)
        # E_d has the unit squared and E_g its inverse: an eps for each would have to scale so; it is left out of one
        rule = optim.Adadelta([p], eps=1e-300)
        rule.state[p] = {"step": 0, "square_avg": torch.zeros_like(p), "acc_delta": torch.full_like(p, 1e-4 * unit**2)}
        for _ in range(100):
            p.grad = (p.detach() / unit).sinh() / unit
            rule.step()
        ends.append(p.detach() / unit)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-11, atol=0.0)
    assert float((ends[0] - torch.tensor([1.0, -2.0])).abs().min()) > 0.1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_loss_does_not_matter_to_adaptive_methods(paths, scale):
    for make in (optim.AdaMax, optim.NAdam, optim.RMSprop, optim.Adagrad):
        form = {"form": "paper"} if make is not optim.NAdam else {}
        eps = {} if make is optim.AdaMax else {"eps": 0.0}
        ends = []
        for factor in (1.0, scale):
            params = paths.start()
            optimizer = make(params, lr=1e-2, **form, **eps)
            for t in range(100):
                for p in params:
                    p.grad = factor * paths.gradient(p, t)
                optimizer.step()
            ends.append([p.detach() for p in params])
        assert paths.distance(*ends) < 1e-9, make


@pytest.mark.parametrize("psi", [0.0, 4e-3, 0.3])
def test_the_product_of_nadam_s_momenta_in_closed_form_is_the_product(psi):
    product = 1.0
    for t in range(1, 400):
        product *= 0.9 * (1 - 0.5 * 0.96 ** (t * psi))
        assert momentum_product(t, 0.9, psi) == pytest.approx(product, rel=1e-12)
        assert float(momentum_product(torch.tensor(float(t), dtype=torch.float64), 0.9, psi)) == pytest.approx(
            product, rel=1e-12
        )


def test_a_coordinate_without_gradients_stays_where_it_is():
    for make in (
        optim.AdaMax,
        optim.RMSprop,
        optim.Adagrad,
        optim.Adadelta,
        optim.NAdam,
        optim.Signum,
        optim.Lion,
        optim.SGD,
    ):
        for form in (
            ({"form": "paper"}, {}) if make in (optim.AdaMax, optim.RMSprop, optim.Adagrad, optim.NAdam) else ({},)
        ):
            p = nn.Parameter(torch.tensor([1.0, 1.0]))
            optimizer = make([p], lr=0.1, **form)
            for _ in range(3):
                p.grad = torch.tensor([1.0, 0.0])
                optimizer.step()
            assert p[1].item() == 1.0
            assert p[0].item() < 1.0


def test_centered_rmsprop_survives_a_variance_that_rounds_below_zero():
    p = nn.Parameter(torch.full((64,), 1.0))
    optimizer = optim.RMSprop([p], lr=1e-3, centered=True, alpha=0.9)
    for _ in range(300):
        p.grad = torch.linspace(0.1, 3.0, 64)
        optimizer.step()
    assert bool(p.isfinite().all())


def test_lion_and_signum_are_their_equations(paths):
    for make in (optim.Lion, optim.Signum):
        ours = paths.run(lambda params, make=make: make(params, lr=1e-2, weight_decay=0.1), steps=100)
        params, means = paths.start(), [torch.zeros_like(p) for p in paths.start()]
        for t in range(100):
            for i, p in enumerate(params):
                g = paths.gradient(p, t)
                direction = (0.9 * means[i] + 0.1 * g).sign()
                means[i] = (0.99 if make is optim.Lion else 0.9) * means[i] + (0.01 if make is optim.Lion else 0.1) * g
                p.data.mul_(1 - 1e-2 * 0.1).sub_(direction, alpha=1e-2)
        assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "argument"),
    [
        ("SGD", {"momentum": 1.0}, "momentum"), ("SGD", {"nesterov": True}, "nesterov"),
        ("SGD", {"momentum": 0.9, "dampening": 0.5, "form": "paper"}, "dampening"), ("SGD", {"form": "keras"}, "form"),
        ("Adagrad", {"lr_decay": -1.0}, "lr_decay"), ("Adadelta", {"rho": 1.0}, "rho"), ("Adadelta", {"eps": 0.0}, "eps"),
        ("RMSprop", {"alpha": 1.5}, "alpha"), ("AdaMax", {"betas": (0.9, 1.0)}, "betas"), ("NAdam", {"momentum_decay": -1.0}, "momentum_decay"),
        ("Signum", {"momentum": -0.1}, "momentum"), ("Lion", {"betas": (1.0, 0.9)}, "betas"),
    ],
)  # fmt: skip
def test_a_hyperparameter_out_of_range_is_named(name, options, argument):
    with pytest.raises(ArgumentError, match=argument) as caught:
        getattr(optim, name)([nn.Parameter(torch.zeros(1))], **options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_no_state_is_kept_for_a_momentum_of_zero(name):
    p = nn.Parameter(torch.zeros(3))
    optimizer = getattr(optim, name)([p])
    p.grad = torch.ones(3)
    optimizer.step()
    assert "momentum_buffer" not in optimizer.state[p]
    assert math.isfinite(p[0].item())


@pytest.mark.parametrize("path", ["compiled", "foreach"])
@pytest.mark.parametrize(
    "name",
    [
        "SGD",
        "Adagrad",
        "RMSprop",
        "AdaMax",
        "NAdam",
        "AdEMAMix",
        "DiffGrad",
        "AMSGrad",
        "AdamNC",
        "InducedMetric",
        "AdaGradNorm",
    ],
)
def test_a_step_count_on_the_device_gives_the_same_steps(paths, name, path, monkeypatch):
    monkeypatch.setenv("COVECTOR_OPTIM", "foreach" if path == "foreach" else "")
    options = (
        {"warmup_steps": 10} if name == "AdEMAMix" else {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    )
    make = getattr(optim, name)
    held = paths.run(lambda params: make(params, lr=1e-2, capturable=True, **options), 30)
    plain = paths.run(lambda params: make(params, lr=1e-2, **options), 30)
    # the count is a float32 number
    assert paths.distance(held, plain) < 1e-3
