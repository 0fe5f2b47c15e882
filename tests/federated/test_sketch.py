"""Sketch runs: projected gradients against dense computation, server steps against torch, mixed federations."""

import pytest
import torch

from covector import Backprop, SketchPool, ZerothOrder, trees
from covector.errors import CompositionError, MismatchError
from covector.federated import Commit, Grads, SketchClient, run
from covector.federated.averaging import displacement, trimmed_mean
from covector.federated.batches import batch_index
from covector.federated.commit import Settings, ids_of
from covector.federated.payloads import DENSE, Kind, coordinates, read_coordinates
from covector.federated.sketch import slopes_of
from covector.gradients import Sketch, project

POOL = SketchPool(key=3, size=32)


def dense_matrix(params, pool):
    """S as a matrix [d, N]: column j is what the j-th coordinate does to the parameters."""
    columns = []
    for j in range(pool.size):
        x = torch.zeros(pool.size, dtype=torch.float64)
        x[j] = 1.0
        columns.append(trees.flatten(Sketch(pool.key, x).dense(params)).double())
    return torch.stack(columns, dim=1)


def batch_of(made, name, number):
    client = made.clients[name]
    index = batch_index(made.header.key, int(name[-1]), number, len(client.batches))
    return client.batches[index]


def test_backprop_with_sgd_is_theta_minus_lr_s_st_g(federation):
    options = {"server_step": "sgd", "code": "fp32", "down": "exact", "weighting": "equal"}
    made = federation("sketch", lr=1.0, estimators=[Backprop(carrier=POOL)] * 3, **options)
    theta, s = trees.flatten(made.replica.theta0).double(), dense_matrix(made.replica.theta0, POOL)
    for round in range(1, 4):
        trees.copy_(made.replica.objective.params, trees.unflatten(theta.float(), made.replica.theta0))
        gradients = []
        for name in made.clients:
            loss = made.replica.objective(batch_of(made, name, round - 1))
            parts = torch.autograd.grad(loss, list(made.replica.objective.params.values()))
            gradients.append(torch.cat([part.reshape(-1) for part in parts]).double())
        theta = theta - made.header.lr * (s @ (s.T @ torch.stack(gradients).mean(0)))
        made.replica.moved()
        run(made.server, made.clients, round)
        seen = trees.flatten(made.server.ledger.materialize(made.replica.theta0)).double()
        # weights are multiples of 2**-16, so equal thirds are off by 1e-5 of the step
        assert torch.allclose(seen, theta, rtol=0, atol=5e-5)
    assert float((theta - trees.flatten(made.replica.theta0)).norm()) > 0.5


def test_slopes_of_a_zeroth_order_client_average_to_the_projected_gradient(federation):
    steps = 300
    options = {"server_step": "sgd", "code": "fp32", "down": "exact", "eps": 2.0**-10}
    zeroth = ZerothOrder(directions=POOL, eps=2.0**-10)
    made = federation("sketch", clients=1, steps=steps, estimators=[zeroth], **options)
    trees.copy_(made.replica.objective.params, made.replica.theta0)
    loss = made.replica.objective(batch_of(made, "client-0", 0))
    parts = torch.autograd.grad(loss, list(made.replica.objective.params.values()))
    exact = project(dict(zip(made.replica.theta0, parts, strict=True)), POOL.key, POOL.size)
    run(made.server, made.clients, 1)
    seen = made.server.ledger.values() / -made.header.lr
    # E|seen - exact|^2 = |exact|^2 (N - 1) / steps
    assert float((seen - exact).norm() / exact.norm()) < 2 * (POOL.size / steps) ** 0.5


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_server_steps_are_torchs_on_the_sketchs_coordinates(federation, name):
    options = {"server_step": name, "code": "fp32", "down": "exact", "weighting": "equal"}
    made = federation("sketch", clients=1, lr=0.02, estimators=[Backprop(carrier=POOL)], **options)
    x = torch.zeros(POOL.size, dtype=torch.float64, requires_grad=True)
    optimizer = {
        "sgd": lambda: torch.optim.SGD([x], lr=0.02),
        "momentum": lambda: torch.optim.SGD([x], lr=0.02, momentum=0.9),
        "adam": lambda: torch.optim.Adam([x], lr=0.02),
    }[name]()
    for round in range(1, 7):
        (message,) = made.server.open_round(["client-0"]).values()
        answer = made.clients["client-0"].handle(message)
        x.grad = read_coordinates(Grads.from_bytes(answer, made.header).payload)
        optimizer.step()
        made.server.receive("client-0", answer)
        made.server.close_round()
        assert torch.allclose(made.server.ledger.values(), x.detach(), rtol=0, atol=round * 2.0**-32)


def test_both_kinds_of_client_in_one_run_lower_the_loss(federation):
    made = federation("sketch", clients=3, steps=8, lr=0.1, rounds=12)
    kinds = set()

    def spy(way, round, client, data):
        if way == "up":
            kinds.add(Grads.from_bytes(data, made.header).payload.kind)
        return [data]

    losses = [metrics.loss for metrics in run(made.server, made.clients, 12, faults=spy).rounds]
    assert kinds == {Kind.COORDINATES_BYTE, Kind.SCALARS, Kind.BYTES}
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize("options", [{"probe": "forward", "queries": 4, "normalize": "fzoo"}, {"kernel": "kerzoo"}])
def test_any_zeroth_order_estimator_sends_exactly_its_estimate(federation, options):
    zeroth = ZerothOrder(directions=POOL, eps=2.0**-8, **options)
    made = federation("sketch", clients=1, steps=4, estimators=[zeroth], code="fp32", server_step="sgd", down="exact")
    (message,) = made.server.open_round(["client-0"]).values()
    client = made.clients["client-0"]
    grads = Grads.from_bytes(client.handle(message), made.header)
    ids = ids_of(made.header, Settings(1, made.header.lr), 0, grads.payload)
    sent = sum(r * POOL.signs(k).double() for r, k in zip(grads.payload.numbers.double(), ids, strict=True)) / 4
    zeroth.load_state_dict({"skipped": 0, "seed": zeroth.seed, "step": 0})
    estimates = [zeroth(client.objective, batch_of(made, "client-0", i)) for i in range(4 // zeroth.queries)]
    expected = sum(e.gradient.x.double() for e in estimates) / len(estimates)
    assert torch.allclose(sent, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_slopes_are_recovered_from_their_sum(count):
    generator = torch.Generator().manual_seed(count)
    directions = torch.stack([POOL.signs(k).double() for k in range(count)])
    slopes = torch.randn(count, generator=generator, dtype=torch.float64)
    assert torch.allclose(slopes_of((directions.T @ slopes) / count, directions), slopes)


@pytest.mark.parametrize("code", ["fp32", "bf16", "byte"])
def test_coordinates_survive_their_code(code):
    values = torch.randn(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    payload = coordinates(values, code, seed=1)
    seen = read_coordinates(payload)
    limit = {"fp32": 1e-6, "bf16": 0.005, "byte": 0.1}[code]
    assert bool(((seen - values).abs() <= limit * values.abs() + 1e-4).all())
    if code == "byte":
        mean = torch.stack([read_coordinates(coordinates(values, code, seed)) for seed in range(40)]).mean(0)
        assert float((mean - values).norm() / values.norm()) < 0.1 / 40**0.5


def test_a_step_in_bytes_is_unbiased_and_the_same_integers_for_all(federation):
    made = federation("sketch")
    step = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = -0.05 * step * 2.0**32
    drawn = [displacement(made.header, Settings(r, 0.05), step).units().double() for r in range(1, 200)]
    error = (torch.stack(drawn).mean(0) - exact).abs()
    assert bool((error < 0.1 * exact.abs() * 4 / 200**0.5 + 1).all())
    assert torch.equal(drawn[0].long(), displacement(made.header, Settings(1, 0.05), step).units())


def test_bytes_of_a_sketch_run(federation):
    pool = SketchPool(3, 4096)
    made = federation("sketch", pool=pool, clients=2, estimators=[Backprop(carrier=pool)] * 2)
    metrics = run(made.server, made.clients, 3).rounds[-1]
    for traffic in metrics.traffic.values():
        assert traffic.up == 14 + 26 + 5 + 4 + 4096
        # settings, two entries without numbers, one byte a coordinate, digest
        assert traffic.down == 14 + 34 + 2 + 4 + (20 + 1 + 2 + 2 * 12 + 9 + 4096 + 32)


def test_the_trimmed_mean_ignores_what_a_minority_claims():
    honest = torch.randn(8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hostile = torch.cat((honest, torch.full((2, 16), 1e9, dtype=torch.float64)))
    mean = trimmed_mean(hostile, 0.2)
    assert bool((mean >= honest.min(0).values).all())
    assert bool((mean <= honest.max(0).values).all())


def test_a_hostile_gradient_is_bounded_by_its_norm(federation):
    options = {"server_step": "sgd", "down": "exact", "code": "fp32", "weighting": "equal"}
    made = federation("sketch", clients=3, estimators=[Backprop(carrier=POOL)] * 3, **options)
    run(made.server, made.clients, 2)
    before = made.server.ledger.values()

    def faults(way, round, client, data):
        if way == "up" and client == "client-1":
            grads = Grads.from_bytes(data, made.header)
            payload = coordinates(read_coordinates(grads.payload) * 1e6, "fp32", 0)
            return [Grads(grads.round, 1, 0, 1, 0.0, payload).to_bytes(made.header)]
        return [data]

    run(made.server, made.clients, 3, faults=faults)
    moved = float((made.server.ledger.values() - before).norm())
    assert 0 < moved < made.header.lr * 65 * made.server.norms.value
    assert "absurd" in str(made.server.report[-1])


def test_a_round_without_numbers_leaves_state_and_moments(federation):
    made = federation("sketch")
    run(made.server, made.clients, 2)
    state = (made.server.ledger.digest(), made.server.moments)
    made.server.open_round(["client-0"])
    commit = Commit.from_bytes(made.server.close_round(), made.header)
    assert commit.displacement is None
    assert (made.server.ledger.digest(), made.server.moments) == state


@pytest.mark.parametrize("estimator", [Backprop(), ZerothOrder(), ZerothOrder(directions="normal")])
def test_an_estimator_without_a_sketch_is_refused(federation, estimator):
    made = federation("sketch")
    with pytest.raises(CompositionError, match="Backprop\\(carrier=pool\\)"):
        SketchClient(made.replica, [], estimator)


def test_another_pool_than_the_runs_is_refused(federation):
    made = federation("sketch")
    client = SketchClient(made.replica, [], Backprop(carrier=SketchPool(4, 32)))
    (message,) = made.server.open_round(["new"]).values()
    with pytest.raises(MismatchError, match="use the run's pool"):
        client.handle(message)


def test_coordinates_are_refused_by_kseed(federation):
    made = federation("compact")
    made.server.open_round(["client-0"])
    payload = coordinates(torch.ones(64), "fp32", 0)
    assert payload.kind in DENSE
    outcome = made.server.receive("client-0", Grads(1, 0, 0, 1, 0.0, payload).to_bytes(made.header))
    assert not outcome.accepted
    assert outcome.detail == "coordinates in a run of scalars"
