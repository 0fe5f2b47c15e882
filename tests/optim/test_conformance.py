"""Being exported is enough to be tested: every optimizer of ``covector.optim`` keeps the conventions of torch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector import optim
from covector.errors import ArgumentError, CovectorError, UnsupportedError
from covector.optim import Optimizer

CLASSES = {
    name: value
    for name in optim.__all__
    if inspect.isclass(value := getattr(optim, name)) and issubclass(value, Optimizer) and value is not Optimizer
}
# what an optimizer needs beyond parameters
EXTRA: dict[str, dict[str, Any]] = {}

# by how much rounding may be felt, where not a thousandth of a step: behind the normalization of the model a gradient
# has an empty direction, and what rounding leaves there is divided by its own size
FELT: dict[str, float] = {"SOAP": 1e-4}

# they ask for more than gradients: their step evaluates the model itself
BY_CLOSURE = {"AdGD", "OASIS"}
# their energy is of a positive number, whatever is maximized
BY_ENERGY = {"AEGD", "AEPG"}

every = pytest.mark.parametrize("name", CLASSES)


def make(name: str, params: Any, **options: Any) -> Optimizer:
    return CLASSES[name](params, **EXTRA.get(name, {}), **options)


def model(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(7, 6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    ).to(dtype)


def batches(count: int, seed: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randint(0, 7, (16,), generator=generator), torch.randint(0, 3, (16,), generator=generator)


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(net(batch[0]).float(), batch[1])


def step(optimizer: Optimizer, net: nn.Module, batch: tuple[Tensor, Tensor], sign: float = 1.0) -> float:
    """One step on a batch, in the way that the optimizer asks for."""

    def closure() -> Tensor:
        return sign * loss_of(net, batch)

    if type(optimizer).__name__ in BY_CLOSURE:
        return float(optimizer.step(closure).detach())
    optimizer.zero_grad()
    loss = closure()
    loss.backward()
    optimizer.step(loss=loss.detach() * (sign if type(optimizer).__name__ in BY_ENERGY else 1.0))
    return float(loss.detach())


def train(net: nn.Module, optimizer: Optimizer, count: int = 4, seed: int = 1) -> float:
    loss = 0.0
    for batch in batches(count, seed):
        loss = step(optimizer, net, batch)
    return loss


def values(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in net.parameters()])


@every
def test_the_loss_of_a_fixed_batch_falls(name: str) -> None:
    net = model()
    optimizer = make(name, net)
    batch = next(batches(1))
    before = float(loss_of(net, batch).detach())
    for _ in range(60):
        step(optimizer, net, batch)
    assert float(loss_of(net, batch).detach()) < before


@every
def test_a_resumed_run_is_the_same_bit_for_bit(name: str, tmp_path: Any) -> None:
    straight, halted = model(), model()
    optimizer = make(name, straight)
    train(straight, optimizer, 3, seed=1)
    train(straight, optimizer, 3, seed=2)

    first = make(name, halted)
    train(halted, first, 3, seed=1)
    saved = copy.deepcopy(first.state_dict())
    resumed = make(name, halted)
    resumed.load_state_dict(saved)
    train(halted, resumed, 3, seed=2)
    assert torch.equal(values(straight), values(halted))


@every
def test_a_bfloat16_model_keeps_its_state_in_float32(name: str) -> None:
    net = model(torch.bfloat16)
    optimizer = make(name, net)
    train(net, optimizer, 3)
    again = make(name, net)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for source in (optimizer, again):
        floating = [
            v
            for s in source.state.values()
            if isinstance(s, dict)
            for v in s.values()
            if isinstance(v, Tensor) and v.is_floating_point()
        ]
        assert all(v.dtype == torch.float32 for v in floating)
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in net.parameters())


@every
def test_an_update_is_what_a_step_would_add(name: str) -> None:
    stepped, valued = model(torch.float64), model(torch.float64)
    one, two = make(name, stepped), make(name, valued)
    for batch in batches(3):
        step(one, stepped, batch)
        before = values(valued)
        if name in BY_CLOSURE:
            updates = two.update(lambda batch=batch: loss_of(valued, batch))  # type: ignore[misc]
        else:
            two.zero_grad()
            loss = loss_of(valued, batch)
            loss.backward()
            updates = two.update(loss=loss.detach())
        assert torch.equal(before, values(valued))
        two.apply(updates)
        torch.testing.assert_close(values(stepped), values(valued), rtol=1e-9, atol=1e-12)


@every
def test_param_groups_have_their_own_learning_rates(name: str) -> None:
    net = model()
    parameters = list(net.parameters())
    optimizer = make(name, parameters[:2])
    optimizer.add_param_group({"params": parameters[2:], "lr": 0.0, "weight_decay": 0.0})
    before = [p.detach().clone() for p in parameters]
    train(net, optimizer, 3)
    assert all(torch.equal(p, b) for p, b in zip(parameters[2:], before[2:], strict=True))
    assert any(not torch.equal(p, b) for p, b in zip(parameters[:2], before[:2], strict=True))


@every
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(name: str) -> None:
    net = model()
    optimizer = make(name, net)
    batch = next(batches(1))

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = loss_of(net, batch)
        loss.backward()
        return loss

    expected = float(loss_of(net, batch).detach())
    assert float(optimizer.step(closure)) == expected


@every
def test_a_scheduler_drives_the_learning_rate(name: str) -> None:
    net = model()
    optimizer = make(name, net)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    train(net, optimizer, 1)
    scheduler.step()
    assert all(group["lr"] == 0.0 for group in optimizer.param_groups)


@every
def test_a_tensor_learning_rate_steps_as_a_number_does(name: str) -> None:
    ours, theirs = model(torch.float64), model(torch.float64)
    rate = float(make(name, ours).param_groups[0]["lr"])
    train(ours, make(name, ours, lr=rate), 3)
    train(theirs, make(name, theirs, lr=torch.tensor(rate, dtype=torch.float64)), 3)
    torch.testing.assert_close(values(ours), values(theirs), rtol=1e-9, atol=1e-12)


@every
def test_maximize_is_descent_on_the_negated_loss(name: str) -> None:
    ascent, descent = model(torch.float64), model(torch.float64)
    up, down = make(name, ascent, maximize=True), make(name, descent)
    for batch in batches(3):
        for net, optimizer, sign in ((ascent, up, -1.0), (descent, down, 1.0)):
            step(optimizer, net, batch, sign)
        torch.testing.assert_close(values(ascent), values(descent), rtol=1e-9, atol=1e-12)


@every
def test_parameters_without_a_gradient_stay_and_do_not_count_steps(name: str) -> None:
    net = model()
    optimizer = make(name, net)
    train(net, optimizer, 2)
    frozen = net[1].weight
    before = frozen.detach().clone()
    steps = optimizer.state[frozen].get("step")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net, next(batches(1)))
        loss.backward()
        frozen.grad = None
        return loss.detach()

    optimizer.step(closure)
    assert torch.equal(frozen, before)
    assert optimizer.state[frozen].get("step") == steps


@every
@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_what_it_cannot_do_is_refused_and_nothing_moves(name: str, kind: str) -> None:
    if kind == "complex":
        with pytest.raises(UnsupportedError, match="complex"):
            make(name, [nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))])
        return
    net = model()
    optimizer = make(name, net)
    train(net, optimizer, 1)
    before, state = values(net), copy.deepcopy(optimizer.state_dict())

    def closure() -> Tensor:
        net[0].weight.grad = torch.sparse_coo_tensor([[0]], torch.ones(1, 6), (7, 6), check_invariants=True)
        return torch.ones(())

    with pytest.raises(UnsupportedError, match="sparse"):
        optimizer.step(closure)
    assert torch.equal(before, values(net))
    assert str(state) == str(optimizer.state_dict())


@every
@pytest.mark.parametrize("options", [{"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": -0.1}], ids=str)
def test_a_bad_hyperparameter_is_named(name: str, options: dict[str, float]) -> None:
    (argument,) = options
    with pytest.raises(ArgumentError, match=argument):
        make(name, model(), **options)


@every
def test_it_takes_parameters_named_parameters_and_a_module(name: str) -> None:
    forms: list[Callable[[nn.Module], Any]] = [nn.Module.parameters, nn.Module.named_parameters, lambda net: net]
    for form in forms:
        net = model()
        optimizer = make(name, form(net))
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))
        train(net, optimizer, 1)


@every
def test_the_compiled_pass_and_foreach_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, eager = model(), model()
    train(compiled, make(name, compiled), 5)
    monkeypatch.setenv("COVECTOR_OPTIM", "foreach")
    train(eager, make(name, eager), 5)
    torch.testing.assert_close(values(compiled), values(eager), rtol=1e-4, atol=FELT.get(name, 1e-5))


@every
def test_state_is_tensors_and_numbers_that_safetensors_and_json_can_hold(name: str) -> None:
    net = model()
    optimizer = make(name, net)
    train(net, optimizer, 2)
    plain = (bool, int, float, str, type(None), Tensor)

    def check(value: Any) -> None:
        if isinstance(value, dict):
            for v in value.values():
                check(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                check(v)
        else:
            assert isinstance(value, plain), type(value)

    check(optimizer.state_dict())


def test_errors_are_covectors() -> None:
    assert issubclass(UnsupportedError, CovectorError)
