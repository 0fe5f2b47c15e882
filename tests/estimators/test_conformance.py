"""What every exported estimator must do: a new one is found here by being exported."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import Tensor, nn

import covector
from covector import Objective, trees
from covector.errors import ArgumentError, NonFiniteError
from covector.estimators import Estimator


def exported_estimators() -> dict[str, type[Estimator]]:
    found = {}
    packages = [m.name for m in pkgutil.iter_modules(covector.__path__) if m.name not in {"cli", "integrations"}]
    for module in map(importlib.import_module, [f"covector.{name}" for name in packages]):
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, Estimator) and not inspect.isabstract(value):
                found[value.__name__] = value
    return found


ESTIMATORS = exported_estimators()
every = pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS.keys())


def problem(dtype: torch.dtype = torch.float64, factor: float = 1.0) -> tuple[Objective, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    batch = torch.randn(8, 4, generator=generator).to(dtype), torch.randn(8, 2, generator=generator).to(dtype)
    return Objective(model, lambda outputs, targets: factor * nn.functional.mse_loss(outputs, targets)), batch


def test_the_known_estimators_are_found() -> None:
    assert {"Backprop", "ZerothOrder"} <= set(ESTIMATORS)


@every
def test_parameters_are_only_read(kind: type[Estimator]) -> None:
    objective, batch = problem()
    before = trees.digest(objective.params)
    kind()(objective, batch)
    assert trees.digest(objective.params) == before
    assert all(p.grad is None for p in objective.params.values())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_equal_estimators_give_equal_bits(kind: type[Estimator], dtype: torch.dtype) -> None:
    objective, batch = problem(dtype)
    first, second = kind()(objective, batch), kind()(objective, batch)
    assert first.loss == second.loss
    assert trees.digest(first.gradient.dense(objective.params)) == trees.digest(second.gradient.dense(objective.params))


@every
def test_a_restored_state_goes_on_where_it_was_taken(kind: type[Estimator]) -> None:
    objective, batch = problem()
    original, restored = kind(), kind()
    for _ in range(3):
        original(objective, batch)
    restored.load_state_dict(original.state_dict())
    expected, seen = original(objective, batch), restored(objective, batch)
    assert trees.digest(seen.gradient.dense(objective.params)) == trees.digest(
        expected.gradient.dense(objective.params)
    )


@every
def test_the_estimate_is_linear_in_the_loss(kind: type[Estimator]) -> None:
    (once, batch), (thrice, _) = problem(), problem(factor=3.0)
    expected, seen = kind()(once, batch), kind()(thrice, batch)
    assert seen.loss == pytest.approx(3.0 * expected.loss, rel=1e-12)
    for name, tensor in expected.gradient.dense(once.params).items():
        torch.testing.assert_close(seen.gradient.dense(thrice.params)[name], 3.0 * tensor, rtol=1e-8, atol=1e-10)


@every
def test_the_slope_along_the_exact_gradient_is_right_on_average(kind: type[Estimator]) -> None:
    objective, batch = problem()
    loss = objective(batch)
    exact = dict(zip(objective.params, torch.autograd.grad(loss, list(objective.params.values())), strict=True))
    estimator = kind()
    slopes = torch.tensor([estimator(objective, batch).gradient.dot(exact) for _ in range(200)])
    mean, spread = slopes.mean(), slopes.std() / 200**0.5
    assert abs(mean - trees.dot(exact, exact)) <= 5 * spread + 1e-6 * trees.dot(exact, exact)


@every
def test_backward_adds_to_grad(kind: type[Estimator]) -> None:
    objective, batch = problem()
    loss = kind().backward(objective, batch)
    once = {name: p.grad.clone() for name, p in objective.params.items() if p.grad is not None}
    assert once.keys() == objective.params.keys()
    assert kind().backward(objective, batch) == loss
    for name, p in objective.params.items():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, 2 * once[name])


@every
def test_a_loss_that_is_not_finite_raises_or_is_skipped(kind: type[Estimator]) -> None:
    objective, (inputs, targets) = problem()
    broken = inputs * float("nan"), targets
    before = trees.digest(objective.params)
    with pytest.raises(NonFiniteError):
        kind()(objective, broken)
    estimator = kind(nonfinite="skip")
    estimate = estimator(objective, broken)
    assert estimate.skipped
    assert estimator.skipped == 1
    assert trees.norm(estimate.gradient.dense(objective.params)) == 0.0
    assert trees.digest(objective.params) == before


@every
def test_an_unknown_policy_is_refused(kind: type[Estimator]) -> None:
    with pytest.raises(ArgumentError, match="nonfinite"):
        kind(nonfinite="ignore")
