"""The schemes with real processes: gloo on one machine, and shared memory."""

import functools
import importlib
from pathlib import Path

import pytest
import torch

from covector import trees
from covector.distributed import (
    EASGD,
    AdaptiveRevision,
    AsyncSimulator,
    Downpour,
    Hogwild,
    LocalAveraging,
    hogwild,
    launch,
    participate,
)
from covector.errors import ArgumentError, CompositionError
from covector.evidence.experiments.asynchronous import Stream, logistic
from covector.evidence.experiments.digits import Digits

pytestmark = pytest.mark.processes
SGD = functools.partial(torch.optim.SGD, lr=0.2)
ADAGRAD = functools.partial(torch.optim.Adagrad, lr=0.2)


TOGETHER = [EASGD(SGD, alpha=0.3, every=3, synchronous=True), LocalAveraging(SGD, every=5)]
SERVED = [Downpour(ADAGRAD, fetch=2, push=2), AdaptiveRevision(0.2), EASGD(SGD, alpha=0.3, every=4)]
STEPS = 40


@pytest.fixture(scope="module")
def stream():
    torch.manual_seed(1)
    inputs, targets = torch.rand(300, 64), torch.randint(0, 10, (300,))
    return Stream(Digits((inputs, targets), (inputs, targets)), seed=3)


@pytest.fixture(autouse=True)
def helpers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # new processes look where this one does


def run(schemes, processes, stream):
    """What the processes returned, scheme by scheme."""
    returned = launch(importlib.import_module("several_schemes").several, processes, schemes, stream, STEPS)
    return list(zip(*returned, strict=True))


def simulated(scheme, workers, stream):
    simulator = AsyncSimulator(logistic(0), workers, scheme)
    losses = simulator.run(stream, workers * STEPS)
    return trees.digest({name: p.detach() for name, p in simulator.params.items()}), losses


def lowers(params, stream):
    objective, everything = logistic(0), stream.digits.train
    return float(objective(everything, params)) < float(objective(everything).detach())


def test_synchronous_schemes_give_the_simulators_bits_and_others_agree_at_the_end(stream):
    *together, free = run([*TOGETHER, Downpour(SGD)], 3, stream)
    for scheme, returned in zip(TOGETHER, together, strict=True):
        expected, losses = simulated(scheme, 3, stream)
        assert {trees.digest(params) for params, _ in returned} == {expected}
        for worker, (_, own) in enumerate(returned):
            assert own == losses[worker::3]
    # two workers and a server: who comes first is up to the machine
    assert len({trees.digest(params) for params, _ in free}) == 1
    assert [len(losses) for _, losses in free] == [0, STEPS, STEPS]
    assert lowers(free[0][0], stream)


def test_one_worker_and_a_server_give_the_simulators_bits(stream):
    for scheme, ((served, none), (worked, losses)) in zip(SERVED, run(SERVED, 2, stream), strict=True):
        expected, own = simulated(scheme, 1, stream)
        assert (none, losses) == ([], own)
        assert trees.digest(served) == trees.digest(worked) == expected


def test_hogwild_of_one_worker_is_plain_sgd(stream):
    shared = hogwild(functools.partial(logistic, 0), stream, SGD, workers=1, steps=30)
    objective = logistic(0)
    optimizer = SGD(list(objective.params.values()))
    for step in range(30):
        optimizer.zero_grad()
        objective(stream(0, step)).backward()
        optimizer.step()
    assert trees.digest(shared) == trees.digest({n: p.detach() for n, p in objective.params.items()})


def test_hogwild_of_several_workers_lowers_the_loss_without_a_lock(stream):
    assert lowers(hogwild(functools.partial(logistic, 0), stream, SGD, workers=2, steps=STEPS), stream)


def test_an_error_in_a_process_is_raised_here(stream):
    with pytest.raises(Exception, match="shared memory"):
        run([Hogwild(SGD)], 1, stream)


def test_without_a_group_there_is_nothing_to_take_part_in(stream):
    with pytest.raises(CompositionError, match="process group"):
        participate(Downpour(SGD), logistic(0), stream, 1)


def test_a_number_of_processes_that_cannot_be_is_refused(stream):
    with pytest.raises(ArgumentError, match="processes"):
        launch(participate, 0)
    with pytest.raises(ArgumentError, match="workers"):
        hogwild(functools.partial(logistic, 0), stream, SGD, workers=0, steps=1)
