import math

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from covector import (
    Backprop,
    Dense,
    LowRankDirections,
    Objective,
    Seeded,
    SeedPool,
    Sketch,
    SketchPool,
    ZerothOrder,
    train,
)
from covector.errors import ArgumentError, CompositionError, UnsupportedError
from covector.training import CarrierSGD
from covector.training.carrier import carried_norm, deposit, innermost

SHAPES = {"w": torch.zeros(1300, 1000), "b": torch.zeros(7), "e": torch.zeros(0, 3), "d": torch.zeros(3, 3).double()}
GRADIENTS = {
    "dense": lambda: Dense({name: torch.randn_like(t) for name, t in SHAPES.items()}),
    "seeded": lambda: Seeded([1, 2, 3], [0.5, -1.0, 0.2]),
    "sketch": lambda: Sketch(4, torch.randn(64)),
    "lowrank": lambda: LowRankDirections(rank=2).sample(1, 0, SHAPES) * 0.3,
}


@pytest.mark.parametrize("carrier", GRADIENTS)
def test_the_norm_block_by_block_is_the_dense_norm(carrier):
    torch.manual_seed(0)
    gradient = GRADIENTS[carrier]()
    dense = gradient.dense({name: t.double() for name, t in SHAPES.items()})
    expected = math.sqrt(sum(float(t.square().sum()) for t in dense.values()))
    assert carried_norm(gradient, SHAPES) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("carrier", GRADIENTS)
def test_several_gradients_are_summed_in_the_carrier(carrier):
    torch.manual_seed(0)
    params = {name: torch.ones_like(t) for name, t in SHAPES.items()}
    first, second = GRADIENTS[carrier](), GRADIENTS[carrier]() * 2.0
    expected = {name: t - 0.1 * (first.dense(params)[name] + second.dense(params)[name]) for name, t in params.items()}
    optimizer = CarrierSGD(params, lr=0.1)
    deposit(first, params, optimizer)
    deposit(second, params, optimizer)
    optimizer.step()
    assert all(torch.allclose(params[name], expected[name], atol=1e-5) for name in params)
    optimizer.step()  # nothing is left
    assert all(torch.allclose(params[name], expected[name], atol=1e-5) for name in params)


def test_zero_grad_forgets_what_was_received():
    params = {"w": torch.zeros(3)}
    optimizer = CarrierSGD(params, lr=1.0)
    optimizer.receive(Seeded([1], [1.0]))
    optimizer.zero_grad()
    optimizer.step()
    assert params["w"].tolist() == [0.0] * 3
    assert optimizer.clip(1.0) == 0.0


def test_groups_have_their_own_rates():
    a, b = {"a": torch.zeros(4)}, {"b": torch.ones(4)}
    optimizer = CarrierSGD([{"params": a, "lr": 0.5}, {"params": b, "weight_decay": 0.1}], lr=1.0)
    optimizer.receive(Dense({"a": torch.ones(4), "b": torch.zeros(4)}))
    optimizer.step()
    assert a["a"].tolist() == [-0.5] * 4
    assert b["b"].tolist() == pytest.approx([0.9] * 4)


def test_a_closure_is_evaluated_before_the_step():
    params = {"w": torch.zeros(2)}
    optimizer = CarrierSGD(params, lr=1.0)

    def closure():
        optimizer.receive(Dense({"w": torch.ones(2)}))
        return 0.25

    assert optimizer.step(closure) == 0.25
    assert params["w"].tolist() == [-1.0, -1.0]


def test_grads_accumulate_as_after_backward():
    params = {"w": torch.zeros(2)}
    sgd = torch.optim.SGD(params.values(), lr=1.0)
    given = Dense({"w": torch.ones(2)})
    deposit(given, params, sgd)
    deposit(given, params, sgd)
    assert params["w"].grad.tolist() == [2.0, 2.0]
    assert given.params["w"].tolist() == [1.0, 1.0]


def test_wrong_arguments_are_refused():
    params = {"w": torch.zeros(2)}
    with pytest.raises(ArgumentError, match=r"^lr=-1"):
        CarrierSGD(params, lr=-1.0)
    with pytest.raises(ArgumentError, match=r"^weight_decay=nan"):
        CarrierSGD(params, lr=1.0, weight_decay=math.nan)
    with pytest.raises(UnsupportedError, match="complex"):
        CarrierSGD({"w": torch.zeros(2, dtype=torch.complex64)}, lr=1.0)
    with pytest.raises(CompositionError, match=r"'module.w', 'w'"):
        deposit(Seeded([1], [1.0]), {"module.w": params["w"]}, CarrierSGD(params, lr=1.0))


def test_its_state_round_trips():
    params = {"w": torch.zeros(2)}
    one = CarrierSGD(params, lr=0.5, weight_decay=0.1)
    two = CarrierSGD(params, lr=0.9)
    two.load_state_dict(one.state_dict())
    assert two.param_groups[0]["lr"] == 0.5
    assert two.state_dict() == one.state_dict()


def test_low_precision_parameters_are_stepped_in_their_dtype():
    params = {"w": torch.zeros(4, dtype=torch.bfloat16)}
    objective = Objective.from_function(lambda p, batch: p["w"].float().sum(), params)
    train(objective, [None], lr=0.5, estimator=Backprop())
    assert params["w"].tolist() == [-0.5] * 4
    assert params["w"].dtype == torch.bfloat16


@pytest.mark.parametrize("pool", [SeedPool(1, 32), SketchPool(1, 32)])
def test_accumulated_zeroth_order_estimates_stay_in_the_pool(pool):
    objective = Objective.from_function(lambda p, batch: (p["w"] - batch).square().sum(), {"w": torch.zeros(8)})
    history = train(objective, [torch.ones(8)], lr=0.01, accumulate=4, steps=80, estimator=ZerothOrder(directions=pool))
    assert history.losses[-1] < 0.5 * history.losses[0]


def test_wrappers_are_taken_off():
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    wrapped = Accelerator(cpu=True).prepare(sgd)
    assert wrapped is not sgd
    assert innermost(wrapped) is sgd


class Allocations(TorchDispatchMode):
    """The most numbers in one tensor made by any operation, views and in-place results left out."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("carrier", ["seeded", "sketch"])
def test_a_step_allocates_nothing_as_large_as_the_parameters(carrier):
    params = {"w": torch.zeros(3000, 1000)}
    optimizer = CarrierSGD(params, lr=0.1)
    with Allocations() as seen:
        optimizer.receive(GRADIENTS[carrier]())
        optimizer.clip(1.0)
        optimizer.step()
    assert 0 < seen.largest <= 1 << 20
    with Allocations() as seen:
        GRADIENTS[carrier]().dense(params)
    assert seen.largest == 3_000_000
