"""Exact Gauss-Newton against dense solves in float64, its limits, and the conventions of an optimizer."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covector import Objective
from covector.curvature import GaussNewton
from covector.errors import ArgumentError, CompositionError, NonFiniteError, UnsupportedError
from covector.optim import EGN, Armijo, LevenbergMarquardt
from covector.optim.output_root import OutputRoot
from covector.trees import digest, flatten

CLASSES = 4


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def steep(outputs: Tensor, targets: Tensor) -> Tensor:
    """A slope where there is no curvature: linear in the first output, convex in the others."""
    return (outputs[:, 0] + outputs[:, 1:].square().sum(1) * (1 + targets)).mean()


def softplus(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.softplus(outputs - targets).mean()


def labels(size: tuple[int, ...], classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, size)


CASES: dict[str, tuple[Any, Any]] = {
    "squared error": (F.mse_loss, lambda: torch.randn(6, CLASSES, dtype=torch.float64)),
    "cross entropy": (F.cross_entropy, lambda: labels((6,))),
    "logistic": (F.binary_cross_entropy_with_logits, lambda: labels((6, CLASSES), 2).double()),
    "label smoothing": (smoothed, lambda: labels((6,))),
    "softplus": (softplus, lambda: torch.randn(6, CLASSES, dtype=torch.float64)),
    "a slope without curvature": (steep, lambda: torch.rand(6, dtype=torch.float64)),
}
every = pytest.mark.parametrize("name", CASES)


def case(name: str, scale: float = 1.0) -> tuple[Objective, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    with torch.no_grad():
        model[2].weight.mul_(scale)
    loss, targets = CASES[name]
    return Objective(model, loss), (torch.randn(6, 3, dtype=torch.float64), targets())


def dense(objective: Objective, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """J, the Hessian by the outputs and the gradient by them, by autograd alone."""
    params = list(objective.params.values())
    outputs = objective.outputs(batch)
    rows = [torch.autograd.grad(z, params, retain_graph=True) for z in outputs.flatten()]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    shape = outputs.shape

    def loss(z: Tensor) -> Tensor:
        return objective.loss(z.view(shape), batch[1])

    z = outputs.detach().flatten()
    bent = torch.autograd.functional.hessian(loss, z)
    return jacobian, bent, torch.autograd.functional.jacobian(loss, z)


def moved(objective: Objective, batch: Any, optimizer: EGN) -> Tensor:
    before = flatten(objective.params)
    optimizer.step(batch)
    return flatten(objective.params) - before


@every
@pytest.mark.parametrize("damping", [1e-4, 1e-2, 1.0])
def test_the_step_is_that_of_the_dense_gauss_newton_matrix(name: str, damping: float) -> None:
    objective, batch = case(name)
    jacobian, bent, slope = dense(objective, batch)
    matrix = jacobian.T @ bent @ jacobian + damping * torch.eye(jacobian.shape[1], dtype=torch.float64)
    expected = -torch.linalg.solve(matrix, jacobian.T @ slope)
    found = moved(objective, batch, EGN(objective, lr=1.0, damping=damping))
    assert float((found - expected).norm() / expected.norm()) < 1e-9


@every
def test_the_root_is_one_of_the_hessian_by_the_outputs(name: str) -> None:
    objective, batch = case(name)
    _, bent, slope = dense(objective, batch)
    root = OutputRoot(objective, batch, objective.outputs(batch))
    identity = torch.eye(6 * CLASSES, dtype=torch.float64)
    torch.testing.assert_close(root(root.transposed(identity)), bent, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(root.gradient, slope)
    z, rest = root.split()
    torch.testing.assert_close(root(z) + rest, slope)
    assert (float(rest.norm()) > 1e-3) is (name == "a slope without curvature")


def test_classes_before_positions_and_targets_that_are_ignored() -> None:
    torch.manual_seed(0)
    objective = Objective(nn.Conv1d(2, 3, 1).double(), F.cross_entropy)
    batch = torch.randn(4, 2, 5, dtype=torch.float64), labels((4, 5), 3)
    batch[1][0, 2] = -100
    jacobian, bent, slope = dense(objective, batch)
    matrix = jacobian.T @ bent @ jacobian + 0.1 * torch.eye(jacobian.shape[1], dtype=torch.float64)
    expected = -torch.linalg.solve(matrix, jacobian.T @ slope)
    found = moved(objective, batch, EGN(objective, lr=1.0, damping=0.1))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_a_model_that_is_certain_of_wrong_classes_gets_the_right_step(scale: float) -> None:
    objective, batch = case("cross entropy", scale)
    assert float(objective.outputs(batch).softmax(1).min().detach()) < 1e-6
    jacobian, bent, slope = dense(objective, batch)
    matrix = jacobian.T @ bent @ jacobian + 1e-2 * torch.eye(jacobian.shape[1], dtype=torch.float64)
    expected = -torch.linalg.solve(matrix, jacobian.T @ slope)
    found = moved(objective, batch, EGN(objective, lr=1.0, damping=1e-2))
    assert float((found - expected).norm() / expected.norm()) < 1e-7


@every
def test_under_much_damping_it_is_gradient_descent(name: str) -> None:
    objective, batch = case(name)
    gradient = flatten(dict(enumerate(torch.autograd.grad(objective(batch), list(objective.params.values())))))
    found = moved(objective, batch, EGN(objective, lr=1.0, damping=1e8))
    torch.testing.assert_close(1e8 * found, -gradient, rtol=1e-6, atol=1e-8)


def test_the_operator_of_the_library_agrees() -> None:
    objective, batch = case("cross entropy")
    matrix = GaussNewton(objective, batch)
    gradient = flatten(dict(enumerate(torch.autograd.grad(objective(batch), list(objective.params.values())))))
    image = matrix.shift(0.05)
    found = torch.linalg.solve(image.dense(), -gradient)
    torch.testing.assert_close(
        moved(objective, batch, EGN(objective, lr=1.0, damping=0.05)), found, rtol=1e-8, atol=1e-10
    )


def test_a_linear_model_is_solved_in_one_step_even_with_more_examples_than_parameters() -> None:
    torch.manual_seed(0)
    line = nn.Linear(4, 2, dtype=torch.float64)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    EGN(Objective(line, F.mse_loss), lr=1.0, damping=1e-8).step((x, y))
    exact = torch.linalg.lstsq(torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1), y).solution
    torch.testing.assert_close(torch.cat([line.weight.T, line.bias[None]]), exact, rtol=1e-6, atol=1e-6)


@every
def test_with_a_line_search_the_loss_of_a_batch_never_rises(name: str) -> None:
    objective, batch = case(name)
    optimizer = EGN(objective, lr=1.0, damping=1e-3, line_search=Armijo(), adapt=LevenbergMarquardt())
    losses = [float(optimizer.step(batch)) for _ in range(15)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0] - 0.05


def test_a_step_that_is_found_satisfies_armijos_rule() -> None:
    objective, batch = case("cross entropy", 10.0)
    gradient = flatten(dict(enumerate(torch.autograd.grad(objective(batch), list(objective.params.values())))))
    loss = float(objective(batch))
    step = moved(objective, batch, EGN(objective, lr=30.0, damping=1e-3, line_search=Armijo()))
    assert float(objective(batch)) <= loss + 0.1 * float(gradient @ step)


def test_the_model_of_a_linear_network_keeps_its_promise_and_the_damping_shrinks() -> None:
    torch.manual_seed(0)
    objective = Objective(nn.Linear(3, 2).double(), F.mse_loss)
    batch = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    seen: list[float] = []

    class Watched(LevenbergMarquardt):
        def adapt(self, damping: float, ratio: float) -> float:
            seen.append(ratio)
            return super().adapt(damping, ratio)

    for momentum in (0.0, 0.5):
        optimizer = EGN(objective, lr=0.5, damping=1.0, momentum=momentum, adapt=Watched())
        for _ in range(3):
            optimizer.step(batch)
        assert optimizer.group["damping"] == 0.125
    assert seen == pytest.approx([1.0] * 6, rel=1e-6)


def test_a_step_that_does_harm_raises_the_damping() -> None:
    objective, batch = case("cross entropy", 10.0)
    optimizer = EGN(objective, lr=1000.0, damping=1e-3, adapt=LevenbergMarquardt())
    optimizer.step(batch)
    assert optimizer.group["damping"] == pytest.approx(1.5e-3)


def test_momentum_is_the_average_of_directions_without_bias() -> None:
    objective, batch = case("squared error")
    plain, averaged = copy.deepcopy(objective), objective
    expected, steps = torch.zeros(()), []
    optimizer = EGN(averaged, lr=0.1, momentum=0.8)
    for t in range(4):
        for name, p in plain.params.items():
            with torch.no_grad():
                p.copy_(averaged.params[name])
        direction = moved(plain, batch, EGN(plain, lr=1.0))
        expected = 0.8 * expected + 0.2 * direction
        steps.append(moved(averaged, batch, optimizer))
        torch.testing.assert_close(steps[-1], 0.1 * expected / (1 - 0.8 ** (t + 1)), rtol=1e-9, atol=1e-12)


def test_tied_parameters_and_frozen_ones() -> None:
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.other = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.line(self.other(self.line(x)).tanh())

    objective = Objective(Tied(), F.mse_loss, trainable=lambda name: name.startswith("line"))
    batch = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    jacobian, bent, slope = dense(objective, batch)
    matrix = jacobian.T @ bent @ jacobian + 0.1 * torch.eye(jacobian.shape[1], dtype=torch.float64)
    expected = -torch.linalg.solve(matrix, jacobian.T @ slope)
    torch.testing.assert_close(
        moved(objective, batch, EGN(objective, lr=1.0, damping=0.1)), expected, rtol=1e-9, atol=1e-11
    )


# conventions


def test_a_resumed_run_is_the_same_bit_for_bit() -> None:
    def make(objective: Objective) -> EGN:
        return EGN(objective, lr=1.0, momentum=0.5, line_search=Armijo(), adapt=LevenbergMarquardt())

    straight, batch = case("cross entropy")
    halted, _ = case("cross entropy")
    optimizer = make(straight)
    for _ in range(6):
        optimizer.step(batch)
    first = make(halted)
    for _ in range(3):
        first.step(batch)
    resumed = make(halted)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        resumed.step(batch)
    assert torch.equal(flatten(straight.params), flatten(halted.params))


def test_a_scheduler_drives_it_and_the_loss_before_the_step_is_returned() -> None:
    objective, batch = case("cross entropy")
    optimizer = EGN(objective, lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    expected = float(objective(batch).detach())
    assert float(optimizer.step(batch)) == expected
    scheduler.step()
    assert torch.equal(moved(objective, batch, optimizer), torch.zeros_like(flatten(objective.params)))


def test_float32_trains_and_bfloat16_keeps_its_momentum_in_float32() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        objective = Objective(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype), F.cross_entropy)
        batch = torch.randn(16, 3).to(dtype), labels((16,))
        optimizer = EGN(objective, lr=0.3, damping=0.1, momentum=0.5)
        losses = [float(optimizer.step(batch)) for _ in range(15)]
        assert losses[-1] < losses[0] - 0.1
        again = EGN(objective, lr=0.3, momentum=0.5)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert all(again.state[p]["exp_avg"].dtype == torch.float32 for p in objective.params.values())


def test_what_cannot_work_is_refused_and_nothing_moves() -> None:
    objective, batch = case("squared error")
    with pytest.raises(CompositionError, match="Objective"):
        EGN(objective.module)  # type: ignore[arg-type]
    for options in ({"lr": -1.0}, {"damping": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            EGN(objective, **options)
    optimizer = EGN(objective)
    before = flatten(objective.params)
    with pytest.raises(ArgumentError, match=r"batch='nothing'.*step\(batch\)"):
        optimizer.step()
    with pytest.raises(ArgumentError, match="batch='a closure'"):
        optimizer.step(lambda: objective(batch))
    with pytest.raises(CompositionError, match="trainable"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(NonFiniteError, match="loss is nan"):
        optimizer.step((batch[0], batch[1] * torch.nan))
    function = Objective.from_function(lambda p, b: p["x"].sum(), {"x": torch.zeros(2, requires_grad=True)})
    with pytest.raises(CompositionError, match="no outputs"):
        EGN(function)
    mixing = Objective(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double(), F.mse_loss)
    state = digest(mixing.module.state_dict())
    with pytest.raises(UnsupportedError, match="eval"):
        EGN(mixing).step(batch)
    assert digest(mixing.module.state_dict()) == state
    assert torch.equal(flatten(objective.params), before)


@pytest.mark.parametrize("options", [{"decrease": 0.0}, {"shrink": 1.0}, {"grow": 0.5}, {"trials": 0}], ids=str)
def test_a_bad_line_search_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Armijo(**options)


@pytest.mark.parametrize("options", [{"low": 0.9}, {"grow": 1.0}, {"shrink": 1.0}, {"least": 0.0}], ids=str)
def test_a_bad_damping_rule_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        LevenbergMarquardt(**options)


def test_the_line_search_goes_on_from_where_it_was_and_gives_up_without_descent() -> None:
    search = Armijo(shrink=0.5, trials=3)
    assert search(lambda t: 2.0, loss=1.0, slope=-1.0, first=1.0) == (0.0, 1.0)
    assert search(lambda t: 0.0, loss=1.0, slope=1.0, first=1.0) == (0.0, 1.0)
    assert search(lambda t: float("nan") if t > 0.3 else 0.0, loss=1.0, slope=-1.0, first=1.0) == (0.25, 0.0)
