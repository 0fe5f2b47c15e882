"""The hand-made backward pass of the temporal-order task against autograd."""

from __future__ import annotations

import torch
from torch import nn

from covector.evidence.experiments.temporal_order import forward_and_back, initial, sequences
from covector.nn import VanishingGradientPenalty, explicit_penalty


def test_the_order_of_the_two_marks_is_the_class():
    symbols, classes = sequences(50, 200, torch.Generator().manual_seed(0))
    marks = symbols < 2
    assert (marks.sum(0) == 2).all()
    assert marks[5:10].sum() == marks[25:30].sum() == 200
    found = torch.stack([column[column < 2] for column in symbols.mT])
    assert torch.equal(found[:, 0] * 2 + found[:, 1], classes)
    assert set(classes.tolist()) == {0, 1, 2, 3}


def test_gradients_by_hand_are_those_of_autograd():
    params = {name: value.double() for name, value in initial(0, hidden=7, std=0.5).items()}
    symbols, classes = sequences(10, 5, torch.Generator().manual_seed(0))
    found = forward_and_back(params, symbols, classes)
    cell = nn.RNNCell(6, 7, dtype=torch.float64)
    cell.weight_hh.data, cell.weight_ih.data = params["weight_hh"], params["weight_ih"]
    cell.bias_ih.data, cell.bias_hh.data = params["bias"], torch.zeros(7, dtype=torch.float64)
    inputs = nn.functional.one_hot(symbols, 6).double()
    states = [torch.zeros(5, 7, dtype=torch.float64)]
    for x in inputs:
        states.append(cell(x, states[-1]))
    loss = nn.functional.cross_entropy(states[-1] @ params["head"].mT + params["head_bias"], classes)
    assert abs(loss.item() - found.loss) < 1e-12
    upstream = torch.stack(torch.autograd.grad(loss, states[1:], retain_graph=True))
    assert torch.allclose(found.upstream, upstream, atol=1e-12)
    weights = torch.autograd.grad(loss, [cell.weight_hh, cell.weight_ih, cell.bias_ih], retain_graph=True)
    for name, expected in zip(("weight_hh", "weight_ih", "bias"), weights, strict=True):
        assert torch.allclose(found.grads[name], expected, atol=1e-12)
    general = VanishingGradientPenalty(cell)(loss, inputs, states)
    explicit = explicit_penalty(params["weight_hh"], found.upstream, found.derivative)
    assert abs(general.item() - explicit.item()) < 1e-12
