"""What a closure tells beyond the gradient: both kinds agree, and leave everything as it was."""

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError
from covector.optim.closures import Evaluation


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)).double()


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(net):
    return net(X).square().sum()


def both(net):
    """Evaluations of the two kinds, under the same random numbers."""

    def backward():
        net.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    found = []
    for closure in (lambda: loss_of(net), backward):
        torch.manual_seed(3)
        found.append(Evaluation(closure, list(net.parameters())))
        found[-1].gradients = [p.grad.clone() for p in net.parameters()]
    return found


def test_the_two_kinds_of_closure_agree():
    net = model()
    graph, differences = both(net)
    assert graph.keeps_graph
    assert not differences.keeps_graph
    for one, other in zip(graph.gradients, differences.gradients, strict=True):
        torch.testing.assert_close(one, other)
    vectors = [torch.randn_like(p) for p in net.parameters()]
    for one, other in zip(graph.product(vectors), differences.product(vectors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    points = [p.detach() + 0.1 for p in net.parameters()]
    for one, other in zip(graph.gradients_at(points), differences.gradients_at(points), strict=True):
        torch.testing.assert_close(one, other)


def test_products_are_those_of_the_hessian():
    p = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    evaluation = Evaluation(lambda: p[0] ** 3 * p[1], [p])
    hessian = torch.tensor([[12.0, 3.0], [3.0, 0.0]], dtype=torch.float64)
    for _ in range(2):
        for v in torch.eye(2, dtype=torch.float64):
            torch.testing.assert_close(evaluation.product([v])[0], hessian @ v)


def test_looking_elsewhere_leaves_parameters_gradients_and_random_numbers_alone():
    net = model()
    for evaluation in both(net):
        before = [(p.data_ptr(), p.detach().clone(), p.grad, p.grad.clone()) for p in net.parameters()]
        state = torch.get_rng_state()
        evaluation.gradients_at([torch.zeros_like(p) for p in net.parameters()])
        evaluation.product([torch.ones_like(p) for p in net.parameters()])
        assert torch.equal(state, torch.get_rng_state())
        for p, (where, value, grad, copied) in zip(net.parameters(), before, strict=True):
            assert p.data_ptr() == where
            assert torch.equal(p, value)
            assert p.grad is grad
            assert torch.equal(grad, copied)


def test_a_closure_that_fails_elsewhere_leaves_the_parameters_alone():
    p = nn.Parameter(torch.ones(2))

    def closure():
        if float(p.detach()[0]) != 1.0:
            raise RuntimeError("out of range")
        return p.square().sum()

    evaluation = Evaluation(closure, [p])
    grad = p.grad
    with pytest.raises(RuntimeError, match="out of range"):
        evaluation.gradients_at([torch.zeros(2)])
    assert p.tolist() == [1.0, 1.0]
    assert p.grad is grad


def test_a_linear_loss_and_unused_parameters_have_no_curvature():
    p, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    evaluation = Evaluation(lambda: p.sum(), [p, unused])
    assert unused.grad is None
    assert [h.tolist() for h in evaluation.product([torch.ones(2), torch.ones(3)])] == [[0.0, 0.0], [0.0, 0.0, 0.0]]


def test_a_closure_that_gives_no_graph_is_named():
    p = nn.Parameter(torch.ones(2))
    for closure in (lambda: None, lambda: 3.0, lambda: p.detach().sum()):
        with pytest.raises(ArgumentError, match="closure="):
            Evaluation(closure, [p])
