"""The character language model: its windows, its seeds, and that it learns."""

import torch

from covector.compare.tasks.charlm import CONTEXT, _windows, characters, charlm, train


def test_a_window_is_followed_by_its_target():
    text, symbols = characters()
    inputs, targets = _windows(text[:100])
    assert len(inputs) == len(targets) == 100 - CONTEXT
    assert all(torch.equal(torch.cat([inputs[i], targets[i : i + 1]]), text[i : i + CONTEXT + 1]) for i in (0, 41, 83))
    assert int(text.max()) == symbols - 1


def test_batches_and_models_are_functions_of_the_seed():
    one, same, other = charlm(1, width=8), charlm(1, width=8), charlm(2, width=8)
    first = [list(task.train_batches(2)) for task in (one, same, other)]
    assert torch.equal(first[0][1][0], first[1][1][0])
    assert not torch.equal(first[0][1][0], first[2][1][0])
    assert torch.equal(one.model.first.weight, same.model.first.weight)
    assert not torch.equal(one.model.first.weight, other.model.first.weight)


def test_making_a_task_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    charlm(0, width=8)
    assert torch.equal(torch.rand(1), expected)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    task = charlm(0, width=8)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.5)
    seen = []
    train(task, optimizer, steps=10, warmup=4, after=lambda step, loss: seen.append(optimizer.param_groups[0]["lr"]))
    assert seen[:3] == [0.25, 0.375, 0.5]
    assert seen[3] == max(seen[3:])
    assert abs(seen[-1]) < 1e-6


def test_adam_learns():
    task = charlm(0, width=64)
    before = task.validation_loss()
    assert train(task, torch.optim.Adam(task.model.parameters(), lr=3e-3), steps=40) < before - 1.5
