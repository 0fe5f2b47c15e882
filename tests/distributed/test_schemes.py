"""Asynchronous schemes against what they are without asynchrony, closed forms and a second derivation."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import Objective, trees
from covector.distributed import (
    EASGD,
    AdaptiveRevision,
    AsyncSimulator,
    Downpour,
    Fixed,
    Geometric,
    Hogwild,
    LocalAveraging,
    Poisson,
)
from covector.errors import ArgumentError, CompositionError
from covector.random import uniform

SGD = functools.partial(torch.optim.SGD, lr=0.1)
NESTEROV = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
ADAGRAD = functools.partial(torch.optim.Adagrad, lr=0.3)


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return Objective(module, F.cross_entropy)


def batch_of(worker, step):
    draw = torch.Generator().manual_seed(1000 * worker + step)
    return torch.randn(6, 5, generator=draw, dtype=torch.float64), torch.randint(0, 3, (6,), generator=draw)


def alone(make, steps, worker=0):
    objective = network()
    optimizer = make(list(objective.params.values()))
    for step in range(steps):
        optimizer.zero_grad()
        objective(batch_of(worker, step)).backward()
        optimizer.step()
    return objective.params


def parabola(center=0.0, dim=1):
    """``(x - batch)^2 / 2``, started at ``center``."""
    start = {"x": torch.full((dim,), center, dtype=torch.float64)}
    return Objective.from_function(lambda p, batch: (p["x"] - batch).square().sum() / 2, start)


def same(a, b):
    assert trees.digest({n: p.detach() for n, p in a.items()}) == trees.digest({n: p.detach() for n, p in b.items()})


@pytest.mark.parametrize("make", [SGD, NESTEROV, ADAGRAD], ids=["sgd", "nesterov", "adagrad"])
@pytest.mark.parametrize("scheme", [Downpour, Hogwild])
def test_one_worker_without_delay_is_the_servers_optimizer(scheme, make):
    if scheme is Hogwild:
        # one tensor at a time: optimizers that keep a step count for each tensor do not mind
        make = functools.partial(make, foreach=False)
    simulator = AsyncSimulator(network(), 1, scheme(make))
    simulator.run(batch_of, 30)
    same(simulator.params, alone(make, 30))


def test_summed_gradients_are_one_step_with_their_sum():
    simulator = AsyncSimulator(parabola(), 1, Downpour(SGD, fetch=4, push=4))
    simulator.run(lambda worker, step: torch.tensor([float(step)], dtype=torch.float64), 4)
    assert simulator.params["x"].item() == pytest.approx(0.1 * (0 + 1 + 2 + 3))


def test_a_local_optimizer_moves_the_workers_copy_until_it_fetches():
    simulator = AsyncSimulator(parabola(), 1, Downpour(SGD, local=SGD, fetch=3, push=3))
    ones = torch.ones(1, dtype=torch.float64)
    simulator.run(lambda worker, step: ones, 3)
    # local steps: g = -1, -0.9, -0.81; the server steps once with their sum
    assert simulator.params["x"].item() == pytest.approx(0.271)


@pytest.mark.parametrize("delay", [1, 3, 7])
def test_a_fixed_delay_is_the_delayed_recursion(delay):
    simulator = AsyncSimulator(parabola(5.0), 1, Downpour(SGD), delay)
    zero = torch.zeros(1, dtype=torch.float64)
    simulator.run(lambda worker, step: zero, 40)
    x = [5.0] * (delay + 1)
    while len(x) < 41:
        x.append(x[-1] - 0.1 * x[-1 - delay])
    assert simulator.params["x"].item() == pytest.approx(x[40], rel=1e-12)
    assert simulator.staleness[delay:] == [delay] * (40 - 2 * delay)


def test_delayed_sgd_diverges_beyond_the_known_step():
    # x <- x - lr x_delayed is stable for lr < 2 sin(pi / (2 (2 delay + 1)))
    limit = 2 * torch.sin(torch.tensor(torch.pi / (2 * 9))).item()
    zero = torch.zeros(1, dtype=torch.float64)
    ends = []
    for lr in (0.95 * limit, 1.05 * limit):
        simulator = AsyncSimulator(parabola(1.0), 1, Downpour(functools.partial(torch.optim.SGD, lr=lr)), 4)
        simulator.run(lambda worker, step: zero, 2000)
        ends.append(abs(simulator.params["x"].item()))
    assert ends[0] < 1e-3
    assert ends[1] > 1e3


@pytest.mark.parametrize("workers", [1, 3])
def test_delay_tolerant_adagrad_without_delay_is_adagrad(workers):
    simulator = AsyncSimulator(network(), workers, AdaptiveRevision(lr=0.3, initial=1.0))
    simulator.run(batch_of, 30)
    make = functools.partial(torch.optim.Adagrad, lr=0.3, initial_accumulator_value=1.0, eps=0.0)
    plain = AsyncSimulator(network(), workers, Downpour(make))
    plain.run(batch_of, 30)
    for name, p in plain.params.items():
        torch.testing.assert_close(simulator.params[name], p.detach(), rtol=1e-12, atol=1e-14)


def test_the_revision_leaves_what_the_last_step_size_would_have_done():
    # with z non-decreasing, x = -lr sum_s g_s / sqrt(z at the end of what was known of g_s): here two gradients of 1
    # with the second read before the first was applied: z = 1 + 1, then 2 + 1 + 2
    server = AdaptiveRevision(lr=1.0).server({"x": torch.zeros(1, dtype=torch.float64)})
    read = {"sum/x": torch.zeros(1, dtype=torch.float64)}
    one = torch.ones(1, dtype=torch.float64)
    server.apply({"x": one, **read})
    server.apply({"x": one, **read})
    assert server.params["x"].item() == pytest.approx(-2 / 5**0.5, rel=1e-12)


def test_opposing_delayed_gradients_do_not_shrink_the_step():
    server = AdaptiveRevision(lr=1.0).server({"x": torch.zeros(1, dtype=torch.float64)})
    read = {"sum/x": torch.zeros(1, dtype=torch.float64)}
    one = torch.ones(1, dtype=torch.float64)
    server.apply({"x": one, **read})
    server.apply({"x": -one, **read})
    # z goes back to 2 + 1 - 2 = 1, its maximum stays 2: both steps have one size and cancel
    assert server.params["x"].item() == pytest.approx(0.0, abs=1e-15)
    assert server.largest["x"].item() == 2.0


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("make", [SGD, NESTEROV], ids=["easgd", "eamsgd"])
def test_elastic_averaging_without_a_spring_is_independent_workers(make, synchronous):
    simulator = AsyncSimulator(network(), 3, EASGD(make, alpha=0.0, synchronous=synchronous))
    simulator.run(batch_of, 45)
    for worker, replica in enumerate(simulator.replicas):
        same(replica.params, alone(make, 15, worker))
    same(simulator.params, network().params)


@pytest.mark.parametrize("synchronous", [False, True])
def test_without_gradients_elastic_averaging_ends_in_consensus_and_keeps_the_sum(synchronous):
    flat = Objective.from_function(lambda p, batch: (p["x"] * 0).sum(), {"x": torch.zeros(2, dtype=torch.float64)})
    simulator = AsyncSimulator(flat, 4, EASGD(SGD, alpha=0.2, synchronous=synchronous))
    with torch.no_grad():
        for worker, replica in enumerate(simulator.replicas):
            replica.params["x"].fill_(float(worker))
    simulator.run(lambda worker, step: None, 800)
    for params in (simulator.params, *(replica.params for replica in simulator.replicas)):
        torch.testing.assert_close(params["x"].detach(), torch.full((2,), 6 / 5, dtype=torch.float64))


def test_the_fixed_point_of_unequal_parabolas_is_in_closed_form():
    # lr h_i (x_i - c_i) + alpha (x_i - center) = 0, center = mean x_i
    h, c = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.0, 1.0, 3.0]).double()
    objective = Objective.from_function(
        lambda p, worker: h[worker] * (p["x"] - c[worker]).square().sum() / 2, {"x": torch.zeros(1).double()}
    )
    simulator = AsyncSimulator(objective, 3, EASGD(SGD, alpha=0.3, synchronous=True))
    simulator.run(lambda worker, step: worker, 3 * 400)
    pull = 0.1 * h / (0.1 * h + 0.3)
    center = float((pull * c).sum() / pull.sum())
    assert simulator.params["x"].item() == pytest.approx(center, rel=1e-10)
    for i, replica in enumerate(simulator.replicas):
        assert replica.params["x"].item() == pytest.approx(float(center + pull[i] * (c[i] - center)), rel=1e-10)


def test_averaging_every_step_is_a_larger_batch():
    simulator = AsyncSimulator(network(), 4, LocalAveraging(SGD, every=1))
    simulator.run(batch_of, 4 * 20 + 1)
    objective = network()
    optimizer = SGD(list(objective.params.values()))
    for step in range(20):
        optimizer.zero_grad()
        for worker in range(4):
            (objective(batch_of(worker, step)) / 4).backward()
        optimizer.step()
    for name, p in objective.params.items():
        torch.testing.assert_close(simulator.params[name], p.detach(), rtol=1e-10, atol=1e-12)


SCHEMES = {
    "downpour": Downpour(ADAGRAD, fetch=2, push=3),
    "revision": AdaptiveRevision(0.1),
    "easgd": EASGD(SGD, alpha=0.2, every=4),
    "hogwild": Hogwild(SGD),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_run_is_a_function_of_its_seed(name):
    ends = []
    for seed in (1, 1, 2):
        simulator = AsyncSimulator(network(), 4, SCHEMES[name], Poisson(3.0), seed, order="random")
        losses = simulator.run(batch_of, 60)
        ends.append((losses, trees.digest({n: p.detach() for n, p in simulator.params.items()})))
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]


@pytest.mark.parametrize("name", SCHEMES)
def test_a_run_in_two_parts_is_one_run(name):
    whole, parts = (AsyncSimulator(network(), 3, SCHEMES[name], Geometric(3.0), 5, order="random") for _ in range(2))
    losses = whole.run(batch_of, 50)
    assert parts.run(batch_of, 20) + parts.run(batch_of, 30) == losses
    same(whole.params, parts.params)


def test_the_start_is_not_touched():
    objective = network()
    before = trees.digest(objective.params)
    AsyncSimulator(objective, 2, Downpour(SGD)).run(batch_of, 10)
    assert trees.digest(objective.params) == before


def test_hogwild_readers_see_parts_of_an_update():
    simulator = AsyncSimulator(network(), 1, Hogwild(SGD), Geometric(2.0))
    simulator.run(batch_of, 30)
    waiting = {next(iter(message)) for *_, message in simulator._flying}
    assert 0 < len(waiting) < 4 or len(simulator._flying) % 4
    simulator.deliver()
    assert len(simulator.staleness) == 30 * 4


@pytest.mark.parametrize(("delay", "mean", "variance"), [(Poisson(6.0), 6.0, 6.0), (Geometric(3.0), 3.0, 12.0)])
def test_delays_have_their_distribution(delay, mean, variance):
    drawn = torch.tensor([float(delay(u)) for u in uniform(7, 20_000).tolist()])
    assert float(drawn.mean()) == pytest.approx(mean, rel=0.03)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.06)


def test_mean_staleness_is_the_delay():
    simulator = AsyncSimulator(network(), 4, Downpour(SGD), Poisson(5.0))
    simulator.run(batch_of, 2000)
    assert simulator.mean_staleness == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("workers", lambda: AsyncSimulator(network(), 0, Downpour(SGD))),
        ("order", lambda: AsyncSimulator(network(), 1, Downpour(SGD), order="fast")),
        ("count", lambda: AsyncSimulator(network(), 1, Downpour(SGD), -1)),
        ("mean", lambda: Poisson(-1.0)),
        ("mean", lambda: Geometric(float("inf"))),
        ("fetch", lambda: Downpour(SGD, fetch=0)),
        ("push", lambda: Downpour(SGD, push=0)),
        ("alpha", lambda: EASGD(SGD, alpha=1.5)),
        ("every", lambda: EASGD(SGD, alpha=0.5, every=0)),
        ("every", lambda: LocalAveraging(SGD, every=0)),
        ("lr", lambda: AdaptiveRevision(lr=0.0)),
        ("scheme", lambda: LocalAveraging(SGD).server({})),
    ],
)
def test_a_bad_argument_is_named(argument, call):
    with pytest.raises(ArgumentError, match=f"^{argument}="):
        call()


def test_a_synchronous_scheme_has_no_delays():
    with pytest.raises(CompositionError, match="synchronous"):
        AsyncSimulator(network(), 2, LocalAveraging(SGD), Fixed(2))
