"""Gradients from beside the parameters: what is restored, the identities of the schemes, and independent peers."""

from __future__ import annotations

import copy
import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import nn

from covector.distributed import launch
from covector.errors import ArgumentError, CompositionError, UnsupportedError
from covector.optim import (
    ASAM,
    GAM,
    SAM,
    SGD,
    AdamW,
    Averaged,
    GradientRegularization,
    Lookahead,
    RandomState,
    displaced,
    flooding,
)
from covector.optim.displaced_gradient import DisplacedGradient
from covector.trees import digest

SCHEMES = {
    "SAM": lambda base, **o: SAM(base, rho=0.1, **o),
    "ASAM": lambda base, **o: ASAM(base, rho=0.3, **o),
    "GAM": lambda base, **o: GAM(base, **o),
    "GAM, adaptive": lambda base, **o: GAM(base, adaptive=True, **o),
    "forward": lambda base, **o: GradientRegularization(base, gamma=0.2, eps=0.1, **o),
    "backward": lambda base, **o: GradientRegularization(base, gamma=0.2, eps=0.1, mode="backward", **o),
    "exact": lambda base, **o: GradientRegularization(base, gamma=0.2, mode="exact", **o),
}
every = pytest.mark.parametrize("name", SCHEMES)


def net(seed: int = 0, dtype: torch.dtype = torch.float64, norm: bool = False, dropout: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(4, 8)]
    layers += [nn.BatchNorm1d(8)] if norm else []
    layers += [nn.Tanh()]
    layers += [nn.Dropout(0.5)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(8, 3)).to(dtype)


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator, dtype=dtype), torch.randint(3, (16,), generator=generator)


def closure_of(model: nn.Module, optimizer: Any, data: Any, sign: float = 1.0) -> Any:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sign * nn.functional.cross_entropy(model(data[0]), data[1])
        if getattr(optimizer, "mode", "") != "exact":
            loss.backward()
        return loss

    return closure


def train(model: nn.Module, optimizer: Any, seeds: range, **options: Any) -> list[float]:
    dtype = next(model.parameters()).dtype
    return [float(optimizer.step(closure_of(model, optimizer, batch(s, dtype), **options)).detach()) for s in seeds]


def values(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def quadratic(seed: int = 0, size: int = 6) -> tuple[torch.Tensor, torch.Tensor, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(size, size, generator=generator, dtype=torch.float64)
    w = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
    return a + a.T, torch.randn(size, generator=generator, dtype=torch.float64), w


def gradient_of(make: Any, function: Any, w: nn.Parameter) -> torch.Tensor:
    """The gradient a scheme steps by: base SGD with learning rate 1."""
    before = w.detach().clone()
    optimizer = make(SGD([w], lr=1.0))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = function(w)
        if getattr(optimizer, "mode", "") != "exact":
            loss.backward()
        return loss

    optimizer.step(closure)
    found = before - w.detach()
    with torch.no_grad():
        w.copy_(before)
    return found


# the context manager


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_parameters_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    model = net(dtype=dtype)
    params = list(model.parameters())
    before = digest(dict(model.named_parameters()))
    with displaced(params, [torch.full_like(p, 0.3) for p in params]):
        assert digest(dict(model.named_parameters())) != before
    assert digest(dict(model.named_parameters())) == before


def test_parameters_and_buffers_come_back_after_an_error() -> None:
    model = net(norm=True)
    params, before = list(model.parameters()), digest(model.state_dict())

    def fail() -> None:
        with displaced(params, [torch.ones_like(p) for p in params]):
            model(batch(0)[0])
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert digest(model.state_dict()) == before
    model(batch(0)[0])  # the hook is gone: buffers follow again
    assert digest(model.state_dict()) != before


@pytest.mark.parametrize("named", [True, False])
def test_buffers_that_are_replaced_or_cumulative_come_back(named: bool) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + len(x)
            return x

    model = nn.Sequential(Counter(), nn.BatchNorm1d(4, momentum=None))
    model(torch.randn(8, 4))
    before = digest(model.state_dict())
    with displaced([], [], model if named else None):
        model(torch.randn(8, 4))
        model(torch.randn(8, 4))
    assert digest(model.state_dict()) == before


def test_random_numbers_start_where_they_are_told_to() -> None:
    state = RandomState([])
    first = torch.rand(3)
    with displaced([], [], random=state):
        assert torch.equal(torch.rand(3), first)


# what a step leaves alone


@every
def test_running_statistics_see_the_parameters_only(name: str) -> None:
    plain, wrapped = net(norm=True), net(norm=True)
    train(plain, SGD(plain, lr=0.0), range(3))
    train(wrapped, SCHEMES[name](SGD(wrapped, lr=0.0)), range(3))
    assert digest(plain.state_dict()) == digest(wrapped.state_dict())


@every
def test_dropout_drops_the_same_units_at_all_points_and_the_stream_goes_on_as_after_one_pass(name: str) -> None:
    masks: list[torch.Tensor] = []
    model = net(dropout=True)
    model[2].register_forward_hook(lambda module, args, out: masks.append((out == 0).detach()))
    optimizer = SCHEMES[name](SGD(model, lr=0.1))
    torch.manual_seed(5)
    train(model, optimizer, range(1))
    after = torch.rand(4)
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert len(masks) == (1 if name == "exact" else optimizer.evaluations)
    torch.manual_seed(5)
    model(batch(0)[0])
    assert torch.equal(torch.rand(4), after)


@every
def test_a_closure_that_fails_changes_nothing(name: str) -> None:
    model = net()
    optimizer = SCHEMES[name](SGD(model, lr=0.1, momentum=0.9))
    train(model, optimizer, range(2))
    before, state = values(model), copy.deepcopy(optimizer.state_dict())
    calls = []
    inner = closure_of(model, optimizer, batch(3))

    def closure() -> torch.Tensor:
        calls.append(1)
        if len(calls) == (1 if name == "exact" else optimizer.evaluations):
            raise RuntimeError("out of data")
        return inner()

    with pytest.raises(RuntimeError, match="out of data"):
        optimizer.step(closure)
    assert torch.equal(values(model), before)
    assert str(state) == str(optimizer.state_dict())


# identities


def test_on_a_quadratic_sam_steps_by_the_gradient_and_a_hessian_product() -> None:
    a, b, w = quadratic()
    g = a @ w.detach() + b
    found = gradient_of(lambda base: SAM(base, rho=0.3), lambda x: x @ a @ x / 2 + b @ x, w)
    torch.testing.assert_close(found, g + 0.3 * a @ g / g.norm(), rtol=1e-10, atol=1e-10)


def test_on_a_quadratic_forward_backward_and_exact_are_one() -> None:
    a, b, w = quadratic(1)
    g = a @ w.detach() + b
    for mode in ("forward", "backward", "exact"):
        found = gradient_of(
            lambda base, mode=mode: GradientRegularization(base, gamma=0.2, eps=0.7, mode=mode),
            lambda x: x @ a @ x / 2 + b @ x,
            w,
        )
        torch.testing.assert_close(found, g + 0.2 * a @ g, rtol=1e-10, atol=1e-10)


def curved(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() * x.roll(1)).sum() + (x**4).sum() / 4


def test_small_displacements_give_the_hessian_product_to_first_order() -> None:
    _, _, w = quadratic(2)
    exact = gradient_of(lambda base: GradientRegularization(base, 1.0, mode="exact"), curved, w)
    for mode in ("forward", "backward"):
        errors = []
        for eps in (1e-3, 1e-4):
            found = gradient_of(lambda base, e=eps, m=mode: GradientRegularization(base, 1.0, e, m), curved, w)
            errors.append(float((found - exact).norm()))
        assert errors[0] > 1e-4
        assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


def test_forward_with_gamma_equal_to_eps_is_sam_without_its_normalization() -> None:
    class Unnormalized(DisplacedGradient):
        def scheme(self, at: Any, g0: Any) -> Any:
            return (yield g0 * at.number("rho"))

    _, _, w = quadratic(3)
    sam = gradient_of(lambda base: Unnormalized(base, rho=0.07), curved, w)
    ours = gradient_of(lambda base: GradientRegularization(base, gamma=0.07, eps=0.07), curved, w)
    torch.testing.assert_close(ours, sam, rtol=1e-14, atol=1e-14)


def test_two_flooded_steps_across_the_level_are_a_step_of_backward_regularization() -> None:
    eta, level = 0.05, None
    _, _, w = quadratic(4)
    start = w.detach().clone()
    optimizer = SGD([w], lr=eta)
    for step in range(2):
        loss = curved(w)
        # a level between the losses before and after the first step, so that every step crosses it
        ahead = curved(w.detach() - eta * torch.autograd.grad(curved(w), w)[0])
        level = float((loss.detach() + ahead) / 2) if step == 0 else level
        optimizer.zero_grad()
        flooding(loss, level).backward()
        optimizer.step()
    flooded = start - w.detach()
    with torch.no_grad():
        w.copy_(start)
    g = torch.autograd.grad(curved(w), w)[0]
    backward = gradient_of(lambda base: GradientRegularization(base, gamma=1.0, eps=eta, mode="backward"), curved, w)
    torch.testing.assert_close(flooded, eta**2 * (backward - g), rtol=1e-11, atol=1e-13)


def test_gam_without_its_second_radius_is_twice_sam() -> None:
    _, _, w = quadratic(5)
    sam = gradient_of(lambda base: SAM(base, rho=0.02), curved, w)
    gam = gradient_of(lambda base: GAM(base, rho=0.02, norm_rho=0.0, gamma=0.0), curved, w)
    torch.testing.assert_close(gam, 2 * sam, rtol=1e-13, atol=1e-13)


def test_gam_without_radii_is_twice_the_gradient() -> None:
    _, _, w = quadratic(5)
    plain = torch.autograd.grad(curved(w), w)[0]
    gam = gradient_of(lambda base: GAM(base, rho=0.0, norm_rho=0.0), curved, w)
    torch.testing.assert_close(gam, 2 * plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_gam_is_its_algorithm_written_out(adaptive: bool) -> None:
    _, _, w = quadratic(6)
    r, big, gamma, (b1, b2, b3) = 0.05, 0.3, 0.1, (0.9, 0.7, 1.2)
    at = w.detach()

    def grad(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(curved(x), x)[0]

    def up(v: torch.Tensor, radius: float) -> torch.Tensor:
        return radius * v * at**2 / (at.abs() * v).norm() if adaptive else radius * v / v.norm()

    g0 = grad(at)
    g1 = grad(at + up(g0, r))
    g2 = grad(at + up(g1 - g0, big))
    g3 = grad(at + up(g1 - g0, big) + up(g2, r))
    pro, new = g0 + b2 * g2, b1 * g1 + b3 * g3
    cosine = pro @ new / (pro.norm() * new.norm())
    vertical = pro - cosine * pro.norm() * new / new.norm()
    found = gradient_of(lambda base: GAM(base, r, big, gamma, (b1, b2, b3), adaptive), curved, w)
    torch.testing.assert_close(found, new - gamma * vertical, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["SAM", "ASAM", "forward", "backward", "exact"])
def test_without_its_strength_a_scheme_is_the_base_bit_for_bit(name: str) -> None:
    plain, wrapped = net(), net()
    losses = train(plain, AdamW(plain, lr=0.01), range(5))
    zero = {"SAM": {"rho": 0.0}, "ASAM": {"rho": 0.0}}.get(name, {"gamma": 0.0})
    optimizer = SCHEMES[name](AdamW(wrapped, lr=0.01))
    for group in optimizer.param_groups:
        group.update(zero)
    assert train(wrapped, optimizer, range(5)) == losses
    assert torch.equal(values(plain), values(wrapped))


def test_asam_does_not_see_how_a_layer_is_scaled() -> None:
    """f(a, b) = (a b - 1)^2 is the same for (c a, b / c); ASAM's gradient moves with the parameters, SAM's does not."""

    def gradient(make: Any, a: float, b: float) -> torch.Tensor:
        w = nn.Parameter(torch.tensor([a, b], dtype=torch.float64))
        return gradient_of(make, lambda x: (x[0] * x[1] - 1).square(), w)

    c = torch.tensor([4.0, 0.25], dtype=torch.float64)
    for make, same in ((lambda base: ASAM(base, 0.2, eta=0.0), True), (lambda base: SAM(base, 0.2), False)):
        here, there = gradient(make, 1.5, 0.9), gradient(make, 1.5 * 4, 0.9 / 4)
        assert torch.allclose(there * c, here, rtol=1e-9) is same


@pytest.mark.parametrize("adaptive", [False, True])
def test_ours_are_the_steps_of_pytorch_optimizer(adaptive: bool) -> None:
    ours, theirs = net(), net()
    base = SGD(ours, lr=0.1, momentum=0.9)
    train(ours, ASAM(base, rho=0.5, eta=0.0) if adaptive else SAM(base, rho=0.1), range(6))
    peer = pytorch_optimizer.SAM(
        theirs.parameters(), torch.optim.SGD, rho=0.5 if adaptive else 0.1, adaptive=adaptive, lr=0.1, momentum=0.9
    )
    for seed in range(6):
        closure = closure_of(theirs, peer, batch(seed))
        closure()
        peer.step(closure)
    torch.testing.assert_close(values(ours), values(theirs), rtol=1e-7, atol=1e-8)  # theirs takes norms in float32


# conventions


@every
def test_the_loss_of_a_fixed_batch_falls_and_the_closures_loss_is_returned(name: str) -> None:
    model = net()
    optimizer = SCHEMES[name](SGD(model, lr=0.1))
    data = batch(0)
    expected = float(nn.functional.cross_entropy(model(data[0]), data[1]).detach())
    losses = [float(optimizer.step(closure_of(model, optimizer, data))) for _ in range(30)]
    assert losses[0] == expected
    assert losses[-1] < losses[0]


@every
def test_a_resumed_run_is_the_same_bit_for_bit(name: str) -> None:
    straight, halted = net(), net()
    train(straight, SCHEMES[name](AdamW(straight, lr=0.01)), range(6))
    first = SCHEMES[name](AdamW(halted, lr=0.01))
    train(halted, first, range(3))
    saved = copy.deepcopy(first.state_dict())
    resumed = SCHEMES[name](AdamW(halted, lr=0.01))
    resumed.load_state_dict(saved)
    train(halted, resumed, range(3, 6))
    assert torch.equal(values(straight), values(halted))


def test_a_state_of_the_base_alone_can_be_loaded() -> None:
    model = net()
    base = SGD(model, lr=0.1, momentum=0.9)
    train(model, base, range(2))
    optimizer = SAM(SGD(model, lr=0.1, momentum=0.9), rho=0.2)
    optimizer.load_state_dict(copy.deepcopy(base.state_dict()))
    assert [group["rho"] for group in optimizer.param_groups] == [0.2]
    train(model, optimizer, range(2))


@every
def test_a_bfloat16_model_trains_and_keeps_float32_states(name: str) -> None:
    model = net(dtype=torch.bfloat16)
    optimizer = SCHEMES[name](AdamW(model, lr=0.01))
    train(model, optimizer, range(3))
    assert all(p.dtype == torch.bfloat16 and bool(p.isfinite().all()) for p in model.parameters())
    assert all(
        v.dtype == torch.float32
        for p in model.parameters()
        for v in optimizer.state[p].values()
        if isinstance(v, torch.Tensor)
    )


@every
def test_maximize_is_descent_on_the_negated_loss(name: str) -> None:
    up, down = net(), net()
    train(up, SCHEMES[name](SGD(up, lr=0.1, maximize=True)), range(3), sign=-1.0)
    train(down, SCHEMES[name](SGD(down, lr=0.1)), range(3))
    torch.testing.assert_close(values(up), values(down), rtol=1e-11, atol=1e-12)


@every
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_it_wraps_the_optimizers_of_torch(name: str, kind: Any) -> None:
    theirs, ours = net(), net()
    train(theirs, SCHEMES[name](kind(theirs.parameters(), lr=0.01, weight_decay=0.0)), range(4))
    own = {torch.optim.SGD: SGD, torch.optim.AdamW: AdamW}[kind]
    train(ours, SCHEMES[name](own(ours, lr=0.01, weight_decay=0.0)), range(4))
    torch.testing.assert_close(values(ours), values(theirs), rtol=1e-8, atol=1e-10)


@every
def test_wrappers_may_lie_on_either_side(name: str) -> None:
    inside, outside = net(), net()
    train(inside, SCHEMES[name](Lookahead(SGD(inside, lr=0.1), k=2)), range(5))
    outer = Lookahead(SCHEMES[name](SGD(outside, lr=0.1)), k=2)
    outer.mode = getattr(outer.inner, "mode", "")  # for the closure of this test
    train(outside, outer, range(5))
    torch.testing.assert_close(values(inside), values(outside), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["SAM", "ASAM", "forward", "backward"])
def test_two_calls_are_a_closure(name: str) -> None:
    whole, halves = net(norm=True), net(norm=True)
    train(whole, SCHEMES[name](SGD(whole, lr=0.1, momentum=0.9)), range(4))
    optimizer = SCHEMES[name](SGD(halves, lr=0.1, momentum=0.9))
    for seed in range(4):
        x, y = batch(seed)
        nn.functional.cross_entropy(halves(x), y).backward()
        optimizer.first_step(zero_grad=True)
        nn.functional.cross_entropy(halves(x), y).backward()
        optimizer.second_step(zero_grad=True)
    assert digest(whole.state_dict()) == digest(halves.state_dict())


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    whole, parts = net(), net()
    train(whole, SAM(SGD(whole, lr=0.1), rho=0.1), range(2))
    optimizer = SAM(SGD(parts, lr=0.1), rho=0.1)
    for seed in range(2):
        x, y = batch(seed)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            total = torch.zeros(())
            for i in range(0, 16, 4):
                loss = nn.functional.cross_entropy(parts(x[i : i + 4]), y[i : i + 4]) / 4
                loss.backward()
                total = total + loss.detach()
            return total

        optimizer.step(closure)
    torch.testing.assert_close(values(whole), values(parts), rtol=1e-11, atol=1e-12)


def test_gradients_that_are_views_of_a_reused_buffer_are_kept() -> None:
    _, _, w = quadratic(7)
    expected = gradient_of(lambda base: GradientRegularization(base, 0.5, 0.1), curved, w)
    buffer = torch.zeros(6, dtype=torch.float64)
    before = w.detach().clone()
    optimizer = GradientRegularization(SGD([w], lr=1.0), 0.5, 0.1)

    def closure() -> torch.Tensor:
        loss = curved(w)
        buffer.copy_(torch.autograd.grad(loss, w)[0])
        w.grad = buffer.view(6)
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(before - w.detach(), expected)


def test_groups_have_radii_of_their_own() -> None:
    u, v = (nn.Parameter(torch.tensor([x], dtype=torch.float64)) for x in (1.0, 2.0))
    optimizer = SAM(SGD([u], lr=1.0), rho=0.1)
    optimizer.add_param_group({"params": [v], "rho": 0.0})

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (u.square() + v.square()).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    assert v.item() == 0.0
    assert u.item() == pytest.approx(-0.1 / 5**0.5)
    with pytest.raises(ArgumentError, match="rho"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "rho": -1.0})


def test_parameters_without_a_gradient_stay() -> None:
    model, other = net(), nn.Parameter(torch.ones(3))
    optimizer = GAM(SGD([*model.parameters(), other], lr=0.1, momentum=0.9))
    train(model, optimizer, range(2))
    assert torch.equal(other, torch.ones(3))
    assert not optimizer.state.get(other)


@every
def test_a_step_without_a_closure_says_what_is_needed(name: str) -> None:
    model = net()
    optimizer = SCHEMES[name](SGD(model, lr=0.1))
    closure_of(model, optimizer, batch(0))()
    for call in (optimizer.step, optimizer.update):
        with pytest.raises(ArgumentError, match=r"closure=None.*step\(closure\)"):
            call()


def test_an_update_is_what_a_step_would_add() -> None:
    stepped, valued = net(), net()
    one, two = SAM(SGD(stepped, lr=0.1)), SAM(SGD(valued, lr=0.1))
    train(stepped, one, range(1))
    two.evaluate(closure_of(valued, two, batch(0)))
    two.apply(two.update())
    torch.testing.assert_close(values(stepped), values(valued), rtol=1e-13, atol=1e-14)


def test_what_cannot_work_is_refused() -> None:
    model = net()
    with pytest.raises(CompositionError, match="no optimizer"):
        SAM(model)  # type: ignore[arg-type]
    with pytest.raises(CompositionError, match="rho"):
        SAM(GAM(SGD(model, lr=0.1)))
    with pytest.raises(ArgumentError, match="rho"):
        SAM(SGD(model, lr=0.1), rho=-0.1)
    with pytest.raises(ArgumentError, match="mode"):
        GradientRegularization(SGD(model, lr=0.1), mode="central")
    with pytest.raises(ArgumentError, match="eps"):
        GradientRegularization(SGD(model, lr=0.1), eps=0.0)
    with pytest.raises(CompositionError, match="4 gradients"):
        GAM(SGD(model, lr=0.1)).first_step()
    with pytest.raises(CompositionError, match="without first_step"):
        SAM(SGD(model, lr=0.1)).second_step()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.evaluate(closure_of(model, optimizer, batch(0)))
    with pytest.raises(CompositionError, match="in place"):
        optimizer.update()
    backpropagating = GradientRegularization(SGD(model, lr=0.1), mode="exact")
    before = values(model)
    with pytest.raises(ArgumentError, match="create_graph"):
        backpropagating.step(closure_of(model, SGD(model), batch(0)))
    assert torch.equal(values(model), before)


def test_sparse_gradients_are_refused_before_anything_moves() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = SAM(torch.optim.SGD(table.parameters(), lr=0.1))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = table(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(UnsupportedError, match="sparse"):
        optimizer.step(closure)
    assert torch.equal(table.weight, before)


def test_a_model_compiled_around_it_steps_as_the_plain_one() -> None:
    torch.compiler.reset()
    plain, compiled = net(norm=True), net(norm=True)
    train(plain, SAM(SGD(plain, lr=0.1)), range(3))
    optimizer = SAM(SGD(compiled, lr=0.1), model=compiled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(torch.compile(compiled, backend="eager"), optimizer, range(3))
    torch.testing.assert_close(values(plain), values(compiled))
    torch.testing.assert_close(dict(plain.named_buffers()), dict(compiled.named_buffers()))


def test_lightning_gives_it_the_closure_it_needs(tmp_path: Path) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(dtype=torch.float32)

        def training_step(self, data: list[torch.Tensor]) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(data[0]), data[1])

        def configure_optimizers(self) -> Any:
            return SAM(AdamW(self.net, lr=0.01), rho=0.1)

    sets = [batch(seed, torch.float32) for seed in range(4)]
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(sets, batch_size=None))
    plain = net(dtype=torch.float32)
    train(plain, SAM(AdamW(plain, lr=0.01), rho=0.1), range(4))
    torch.testing.assert_close(values(module.net), values(plain))


def test_accelerate_prepares_it_and_passes_the_closure_on() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier Trainer of this process may have left one
    plain, prepared = net(dtype=torch.float32), net(dtype=torch.float32)
    train(plain, SAM(AdamW(plain, lr=0.01), rho=0.1), range(3))
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(prepared, SAM(AdamW(prepared, lr=0.01), rho=0.1))
    for seed in range(3):
        x, y = batch(seed, torch.float32)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(values(prepared), values(plain))


@pytest.mark.processes
def test_two_ranks_step_by_the_gradients_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)  # new processes look where this one does
    ranks = importlib.import_module("displaced_ranks")
    one, other = launch(ranks.parameters, 2)
    assert one == other
    for name in ranks.SCHEMES:
        alone = ranks.train(name, ranks.network(), slice(0, 8))
        for views in (False, True):
            assert one[f"{name}, views: {views}"] == pytest.approx(alone, rel=1e-9, abs=1e-11)


def test_averages_around_it_see_its_steps() -> None:
    model = net()
    optimizer = Averaged(SAM(SGD(model, lr=0.1)), decay=0.5)
    train(model, optimizer, range(2))
    with optimizer.averaged():
        averaged = values(model)
    assert not torch.equal(averaged, values(model))
