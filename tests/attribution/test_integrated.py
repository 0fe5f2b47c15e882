"""Integrated gradients add up, and input derivatives are those of calculus."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from covector.attribution import (
    directional_derivatives,
    hessian_vector,
    input_derivatives,
    integrated_gradients,
)
from covector.errors import ArgumentError, MismatchError, UnsupportedError


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(inputs: int = 5, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, outputs)
    return nn.Sequential(*layers).double()


def cubic(x: Tensor) -> Tensor:
    """With mixed terms, so that pure derivatives are not all."""
    return (x**3 * torch.arange(1.0, 1 + x.shape[1], dtype=x.dtype)).sum(1) + x[:, 0] * x[:, 1] ** 2 + 7 * x[:, 2]


@pytest.mark.parametrize("rule", ["gauss", "midpoint"])
def test_shares_add_up_to_the_difference(rule):
    model, x = network(), numbers(6, 5)
    found = integrated_gradients(model, x, torch.tensor([0, 1, 2, 0, 1, 2]), steps=200, rule=rule, chunk=13)
    total = found.shares.sum(1)
    assert float(found.difference.abs().min()) > 1e-3
    torch.testing.assert_close(total, found.difference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.gap, total - found.difference)


def test_gauss_is_exact_on_polynomials_and_the_midpoint_rule_of_second_order():
    x, start = numbers(4, 5), numbers(5, seed=1)
    assert integrated_gradients(cubic, x, baseline=start, steps=2).gap.abs().max() < 1e-12
    coarse, fine = (
        integrated_gradients(cubic, x, baseline=start, steps=n, rule="midpoint").gap.abs() for n in (10, 20)
    )
    torch.testing.assert_close(coarse / fine, torch.full((4,), 4.0, dtype=torch.float64), rtol=1e-6, atol=0.0)


def test_a_linear_function_gives_weight_times_distance_and_an_unused_element_nothing():
    w, x, start = numbers(5), numbers(3, 5, seed=1), numbers(3, 5, seed=2)
    w[2] = 0.0
    shares = integrated_gradients(lambda x: x @ w, x, baseline=start, steps=1).shares
    torch.testing.assert_close(shares, w * (x - start))
    assert float(shares[:, 2].abs().max()) == 0.0


def test_elements_that_a_function_treats_alike_get_alike():
    x = torch.full((1, 4), 0.7, dtype=torch.float64)
    shares = integrated_gradients(lambda x: x.sum(1).sin() * x.prod(1), x).shares
    torch.testing.assert_close(shares, shares[:, :1].expand(1, 4))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_derivatives_of_a_polynomial_are_exact(mode):
    x, k = numbers(7, 4), torch.arange(1.0, 5.0, dtype=torch.float64)
    first, second, third = input_derivatives(cubic, x, mode=mode, chunk=5)
    own = 3 * k * x**2
    own[:, 0] += x[:, 1] ** 2
    own[:, 1] += 2 * x[:, 0] * x[:, 1]
    own[:, 2] += 7
    curved = 6 * k * x
    curved[:, 1] += 2 * x[:, 0]
    torch.testing.assert_close(first, own)
    torch.testing.assert_close(second, curved)
    torch.testing.assert_close(third, (6 * k).expand(7, 4))


@pytest.mark.parametrize(("mode", "middle"), [("forward", nn.Tanh), ("reverse", nn.SiLU)])
def test_derivatives_of_a_network_are_autograds(mode, middle):
    model, x = network(), numbers(3, 5)
    model[3] = middle()
    found = input_derivatives(model, x, 1, mode=mode, chunk=4)
    for i in range(3):
        for j in range(5):
            t = torch.zeros((), dtype=torch.float64, requires_grad=True)
            value = model((x[i] + t * torch.eye(5, dtype=torch.float64)[j])[None])[0, 1]
            for order in range(3):
                (value,) = torch.autograd.grad(value, t, create_graph=True)
                torch.testing.assert_close(found[order][i, j], value.detach())


def test_orders_agree_with_finite_differences_of_the_order_below():
    model, x, v, h = network(), numbers(4, 5), numbers(4, 5, seed=1), 1e-5
    above, below = (directional_derivatives(model, x + s * v, v, 2) for s in (h, -h))
    here = directional_derivatives(model, x, v, 2)
    for order in range(3):
        torch.testing.assert_close((above[order] - below[order]) / (2 * h), here[order + 1], rtol=1e-6, atol=1e-7)


def test_a_loss_keeps_its_labels_beside_their_examples():
    model, x, y = network(outputs=1), numbers(6, 5), numbers(6, seed=3)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return (out[:, 0] - y).square().tanh()

    together = input_derivatives(model, x, loss, labels=y, chunk=4)
    for i in range(6):
        alone = input_derivatives(model, x[i : i + 1], lambda out, i=i: (out[:, 0] - y[i]).square().tanh())
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i])


def test_reductions_are_means_over_examples_and_images_keep_their_shape():
    x = numbers(5, 1, 2, 2)
    kept = input_derivatives(lambda x: x.sin().flatten(1).sum(1), x, order=2)
    assert [out.shape for out in kept] == [x.shape] * 2
    for name, expected in (("mean", kept[1].mean(0)), ("abs", kept[1].abs().mean(0))):
        reduced = input_derivatives(lambda x: x.sin().flatten(1).sum(1), x, order=2, reduce=name)
        torch.testing.assert_close(reduced[1], expected)


def test_a_hessian_product_is_the_hessian_times_the_vector():
    model, x, v = network(), numbers(3, 5), numbers(3, 5, seed=1)
    found = hessian_vector(model, x, v, torch.tensor([0, 1, 2]))
    for i in range(3):
        hessian = torch.autograd.functional.hessian(lambda row, i=i: model(row[None])[0, i], x[i])
        torch.testing.assert_close(found[i], hessian @ v[i])
    quadratic = (found * v).sum(1)
    torch.testing.assert_close(quadratic, directional_derivatives(model, x, v, torch.tensor([0, 1, 2]), order=2)[2])
    assert not hessian_vector(lambda x: x.sum(1), x, v).any()


def test_linear_functions_have_no_second_derivative_in_either_mode():
    x = numbers(2, 3)
    for mode in ("forward", "reverse"):
        first, second, third = input_derivatives(lambda x: 2 * x[:, 0] - x[:, 1], x, mode=mode)
        assert first.tolist() == [[2.0, -1.0, 0.0]] * 2
        assert not second.any()
        assert not third.any()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: input_derivatives(cubic, x, order=4),
        lambda x: input_derivatives(cubic, x, order=True),
        lambda x: input_derivatives(cubic, x, reduce="sum"),
        lambda x: input_derivatives(cubic, x, mode="taylor"),
        lambda x: integrated_gradients(cubic, x, steps=0),
        lambda x: integrated_gradients(cubic, x, rule="simpson"),
    ],
)
def test_options_out_of_range_are_refused(call):
    with pytest.raises(ArgumentError):
        call(numbers(2, 3))


def test_an_operation_without_a_forward_derivative_is_said_where_forward_is_asked_for():
    with pytest.raises(UnsupportedError, match="reverse"):
        input_derivatives(network(), numbers(2, 5), 1, mode="forward")


def test_shapes_that_do_not_fit_are_refused():
    x = numbers(2, 3)
    for call in (
        lambda: integrated_gradients(cubic, x, baseline=torch.zeros(4)),
        lambda: directional_derivatives(cubic, x, x[:1]),
        lambda: hessian_vector(cubic, x, x[:1]),
    ):
        with pytest.raises(MismatchError):
            call()
