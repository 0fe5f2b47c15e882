"""The embedded engine: bytes counted, metrics, callbacks, resume, and that training trains."""

import math

import pytest

from covector.errors import ArgumentError
from covector.federated import Grads, Verdict, run
from covector.gradients.journal import Journal


def test_traffic_counts_every_byte_that_crosses(federation, kind):
    made, seen = federation(kind), {}

    def spy(way, round, client, data):
        up, down = seen.get((round, client), (0, 0))
        seen[round, client] = (up + len(data), down) if way == "up" else (up, down + len(data))
        return [data]

    result = run(made.server, made.clients, 3, faults=spy)
    counted = {
        (metrics.round, client): (traffic.up, traffic.down)
        for metrics in result.rounds
        for client, traffic in metrics.traffic.items()
    }
    assert counted == seen
    assert len(counted) == 9


def test_only_sampled_clients_cost_anything(federation):
    made = federation(clients=4, server={"clients_per_round": 2})
    result = run(made.server, made.clients, 4)
    assert all(len(metrics.traffic) == len(metrics.losses) == 2 for metrics in result.rounds)


def test_callbacks_see_every_round_in_order(federation):
    made, seen = federation(), []
    result = run(made.server, made.clients, 3, callbacks=[seen.append])
    assert [metrics.round for metrics in seen] == [1, 2, 3]
    assert seen == result.rounds


def test_the_target_counts_the_rounds_before_a_resume(federation, tmp_path):
    with Journal(tmp_path / "j") as journal:
        made = federation(journal=journal)
        run(made.server, made.clients, 2)
    with Journal(tmp_path / "j") as journal:
        server = made.resumed(journal)
        assert [metrics.round for metrics in run(server, made.clients, 5).rounds] == [3, 4, 5]
        assert run(server, made.clients, 5).rounds == []


def test_losses_are_those_the_clients_sent(federation):
    made, sent = federation(), {}

    def spy(way, round, client, data):
        if way == "up":
            sent[client] = Grads.from_bytes(data, made.header).loss
        return [data]

    (metrics,) = run(made.server, made.clients, 1, faults=spy).rounds
    assert metrics.losses == sent
    assert metrics.loss == pytest.approx(sum(sent.values()) / 3)


def test_a_round_without_answers_has_no_loss(federation):
    made = federation()
    (metrics,) = run(made.server, made.clients, 1, faults=lambda way, round, client, data: []).rounds
    assert math.isnan(metrics.loss)
    assert [event.verdict for event in metrics.events] == [Verdict.VANISHED] * 3


def test_clients_that_lost_their_state_are_sent_it_in_the_same_round(federation, kind):
    made = federation(kind)
    run(made.server, made.clients, 2)
    made.clients["client-1"] = federation(kind).clients["client-1"]
    (metrics,) = run(made.server, made.clients, 3).rounds
    assert [event.verdict for event in metrics.events] == [Verdict.JOINED]
    assert len(metrics.losses) == 3


def test_training_lowers_the_loss(federation, kind):
    made = federation(kind, lr=0.2 if kind == "sketch" else 0.08, steps=6)
    losses = [metrics.loss for metrics in run(made.server, made.clients, 10).rounds]
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])


def test_a_run_needs_clients(federation):
    with pytest.raises(ArgumentError):
        run(federation().server, {}, 1)
