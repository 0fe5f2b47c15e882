"""Weight conditioning against weight normalization, and what scaling rows can and cannot do to a condition number."""

from __future__ import annotations

import copy
import math

import numpy
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn.utils import parametrizations

from covector.errors import ArgumentError, CompositionError
from covector.nn import Equilibrated, condition, condition_numbers, strip


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 5), nn.ReLU(), nn.Linear(5, 2))


def test_it_is_weight_normalization_with_lengths_frozen_at_one():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(7, 5).double(), nn.Linear(7, 5).double()
    theirs.load_state_dict(ours.state_dict())
    condition(ours)
    parametrizations.weight_norm(theirs)
    theirs.parametrizations.weight.original0.data.fill_(1.0)
    x = torch.randn(4, 7, dtype=torch.float64)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    assert torch.allclose(ours(x), theirs(x), atol=1e-12)
    assert torch.allclose(
        ours.parametrizations.weight.original.grad, theirs.parametrizations.weight.original1.grad, atol=1e-12
    )


def test_rows_have_the_length_of_the_gain():
    model = condition(network(), gain=math.sqrt(2))
    for layer in (model[0], model[3], model[5]):
        assert torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.tensor(math.sqrt(2)))


def test_columns_and_both():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Equilibrated("col")(weight).norm(dim=0), torch.ones(7))
    both = Equilibrated("row_col")(weight)
    assert torch.allclose(both.norm(dim=0), torch.full((7,), (5 / 7) ** 0.5))
    assert both.square().sum(1).mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["row", "row_col"])
def test_outputs_do_not_depend_on_the_scale_of_rows(mode):
    model = condition(network(), mode)
    x = torch.randn(3, 2, 4, 4)
    before = model(x)
    model[3].parametrizations.weight.original.data.mul_(torch.logspace(-3, 3, 5).unsqueeze(1))
    assert torch.allclose(model(x), before, atol=1e-5)


def test_gradients_have_no_part_along_a_row_unless_detached():
    for detach in (False, True):
        layer = condition(nn.Linear(6, 4), detach=detach)
        layer(torch.randn(3, 6)).square().sum().backward()
        weight = layer.parametrizations.weight.original
        along = (weight.grad * weight).sum(1).abs().max().item()
        assert (along > 1e-3) == detach


@pytest.mark.parametrize("mode", ["row", "col", "row_col"])
def test_gradient_passes_finite_differences(mode):
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(Equilibrated(mode, gain=1.3), weight)


def test_no_scaling_of_rows_is_better_by_more_than_the_root_of_their_number():
    for seed in range(3):
        weight = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        weight *= torch.tensor([1.0, 30.0, 0.02, 4.0]).unsqueeze(1)

        def kappa(logs, weight=weight):
            return numpy.linalg.cond(numpy.exp(logs)[:, None] * weight.numpy())

        ours = numpy.linalg.cond(Equilibrated()(weight).numpy())
        best = min(
            minimize(kappa, start, method="Nelder-Mead").fun
            for start in (numpy.zeros(4), -numpy.log(weight.norm(dim=1).numpy()))
        )
        assert best <= ours <= math.sqrt(4) * best
        assert ours < numpy.linalg.cond(weight.numpy()) / 10


def test_stripping_folds_the_weights_and_changes_no_output():
    model = condition(network(), keep=["5"])
    x = torch.randn(3, 2, 4, 4)
    before = model(x)
    assert torch.equal(strip(model)(x), before)
    assert set(model.state_dict()) == set(network().state_dict())
    assert all(isinstance(layer.weight, nn.Parameter) for layer in (model[0], model[3], model[5]))


def test_kept_layers_stay_as_they_are():
    model, plain = condition(network(), keep=["5"]), network()
    assert torch.equal(model[5].weight, plain[5].weight)
    assert not torch.equal(model[3].weight, plain[3].weight)


def test_the_trained_weight_is_what_is_stored():
    model, plain = condition(network()), network()
    assert torch.equal(model[3].parametrizations.weight.original, plain[3].weight)
    model[3].weight = torch.ones(5, 12)
    assert torch.equal(model[3].parametrizations.weight.original, torch.ones(5, 12))
    twin = condition(network())
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin[3].weight, model[3].weight)
    assert torch.equal(copy.deepcopy(model)[3].weight, model[3].weight)


def test_condition_numbers_are_those_of_the_weights_in_use():
    model = network()
    expected = {
        name: numpy.linalg.cond(model[int(name)].weight.detach().flatten(1).double().numpy())
        for name in ("0", "3", "5")
    }
    assert condition_numbers(model) == pytest.approx(expected)
    assert condition_numbers(nn.Linear(2, 2).requires_grad_(False).apply(lambda m: m.weight.zero_())) == {"": math.inf}
    assert condition_numbers(nn.ReLU()) == {}


def test_rows_of_zeros_stay_zero_with_finite_gradients():
    layer = condition(nn.Linear(3, 2))
    layer.parametrizations.weight.original.data[0] = 0.0
    layer(torch.ones(1, 3)).sum().backward()
    assert (layer.weight[0] == 0).all()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_wrong_arguments_change_nothing():
    model = network()
    for arguments in ({"mode": "rows"}, {"gain": 0.0}, {"keep": ["6"]}, {"keep": ["0", "3", "5"]}):
        with pytest.raises(ArgumentError):
            condition(model, **arguments)
    with pytest.raises(ArgumentError, match="ReLU"):
        condition(nn.ReLU())
    assert set(model.state_dict()) == set(network().state_dict())


def test_conditioning_twice_and_stripping_part_of_a_stack_are_refused():
    model = network()
    condition(model[5])
    with pytest.raises(CompositionError, match="'5'"):
        condition(model)
    assert not hasattr(model[0], "parametrizations")
    parametrizations.orthogonal(model[5])
    with pytest.raises(CompositionError, match="'5'"):
        strip(model)
