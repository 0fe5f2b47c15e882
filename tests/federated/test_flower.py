"""The Flower engine against the embedded one, over a Grid whose nodes live in this process."""

import pytest
import torch

from covector import Backprop, Objective, SketchPool
from covector.errors import ArgumentError, MissingExtraError, ProtocolError
from covector.federated import KSeedClient, KSeedServer, RunHeader, SketchClient, SketchServer, Verdict, run
from covector.federated import flower as engine
from covector.federated.flower_server import GridRounds

flwr_app = pytest.importorskip("flwr.app")
flwr_clientapp = pytest.importorskip("flwr.clientapp")


@pytest.fixture(autouse=True)
def server_process(monkeypatch):
    """Flower tells a ServerApp's process who it is; messages cannot be made without."""
    from flwr.supercore.task_identity import TaskIdentity

    for field in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


def objective():
    torch.manual_seed(0)
    return Objective(torch.nn.Linear(6, 3), torch.nn.functional.cross_entropy)


def batches(client):
    generator = torch.Generator().manual_seed(client)
    inputs = torch.randn(4, 8, 6, generator=generator)
    return [(x, x[:, :3].argmax(1)) for x in inputs]


def kseed():
    header = RunHeader.kseed(objective().params, SketchPool(key=1, size=32), lr=0.01, local_steps=4, key=3)
    return KSeedServer(header), lambda number: KSeedClient(objective(), batches(number))


def sketch():
    header = RunHeader.sketch(objective().params, SketchPool(key=1, size=32), lr=0.05, key=3)
    return SketchServer(header), lambda number: SketchClient(
        objective(), batches(number), Backprop(carrier=SketchPool(key=1, size=32))
    )


class LocalGrid:
    """Flower's Grid with every node in this process.

    Args:
        make_app: builds a ClientApp, as a fresh process does.
        nodes: node id -> partition.
        fresh: a new app for every message, as a SuperNode starts a process for each.
    """

    def __init__(self, make_app, nodes, fresh=False):
        self.make_app, self.nodes, self.fresh = make_app, dict(nodes), fresh
        self.apps, self.states = {}, {}
        self.offline, self.silent, self.broken, self.held = set(), set(), set(), []
        self.replies, self.number, self.types = {}, 0, []

    def get_node_ids(self):
        return [node for node in self.nodes if node not in self.offline]

    def push_messages(self, messages):
        identities = []
        for message in messages:
            self.number += 1
            message.metadata.__dict__["_message_id"] = str(self.number)
            self.types.append(message.metadata.message_type)
            identities.append(str(self.number))
            reply = self._answer(message)
            if message.metadata.message_type == "train" and message.metadata.dst_node_id in self.silent:
                self.held.append((str(self.number), reply))
            else:
                self.replies[str(self.number)] = reply
        return identities

    def pull_messages(self, identities):
        return [self.replies.pop(identity) for identity in list(identities) if identity in self.replies]

    def release(self):
        """Late replies arrive."""
        self.replies.update(self.held)
        self.held.clear()

    def _answer(self, message):
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "train" and node in self.broken:
            return flwr_app.Message(flwr_app.Error(code=2, reason="the process died"), reply_to=message)
        if self.fresh or node not in self.apps:
            self.apps[node] = self.make_app()
        state = self.states.setdefault(node, flwr_app.RecordDict())
        context = flwr_app.Context(1, node, {"partition-id": self.nodes[node]}, state, {})
        return self.apps[node](message, context)


def on_grid(make, fresh=False, nodes=None, **options):
    server, make_client = make()
    make_app = lambda: engine.client_app(lambda context: make_client(int(context.node_config["partition-id"])))  # noqa: E731
    grid = LocalGrid(make_app, nodes or {11: 0, 12: 1, 13: 2}, fresh)
    return server, grid, GridRounds(grid, server, clients=3, **options)


def embedded(make, rounds):
    server, make_client = make()
    return server, run(server, {f"client-{i}": make_client(i) for i in range(3)}, rounds)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("make", [kseed, sketch])
def test_the_ledger_and_the_bytes_equal_those_of_the_embedded_engine(make, fresh):
    server, _, rounds = on_grid(make, fresh)
    metrics = rounds.run(4)
    reference, expected = embedded(make, 4)
    assert server.ledger.digest() == reference.ledger.digest()
    assert int(server.ledger.coefficients.abs().max()) > 0
    assert [m.traffic for m in metrics.rounds] == [m.traffic for m in expected.rounds]
    assert [m.losses for m in metrics.rounds] == [pytest.approx(m.losses) for m in expected.rounds]
    assert server.report == []


def test_nodes_are_asked_their_names_once_and_no_arrays_travel():
    _, grid, rounds = on_grid(kseed)
    rounds.run(3)
    assert grid.types.count("query") == 3
    assert grid.types.count("train") == 9


def test_a_node_that_connects_again_is_the_same_client():
    server, grid, rounds = on_grid(kseed)
    rounds.run(2)
    grid.offline.add(12)
    grid.nodes[99] = 1
    rounds.run(5)
    reference, _ = embedded(kseed, 5)
    assert server.ledger.digest() == reference.ledger.digest()
    assert rounds.nodes["client-1"] == 99


def test_a_node_that_lost_its_state_is_sent_it_within_the_round():
    server, grid, rounds = on_grid(kseed, fresh=True)
    rounds.run(2)
    grid.states.clear()
    rounds.run(4)
    reference, _ = embedded(kseed, 4)
    assert server.ledger.digest() == reference.ledger.digest()
    assert [event.verdict for event in server.report] == [Verdict.JOINED] * 3


def test_a_round_closes_without_nodes_that_fail_or_stay_silent():
    server, grid, rounds = on_grid(kseed, timeout=0.5)
    rounds.run(1)
    grid.broken.add(11)
    grid.silent.add(12)
    rounds.run(2)
    verdicts = {(event.client, event.verdict) for event in server.report}
    assert {("client-0", Verdict.FAILED), ("client-1", Verdict.VANISHED)} <= verdicts
    assert any("the process died" in event.detail for event in server.report)
    before = server.ledger.clock.copy()
    grid.broken.clear()
    grid.silent.clear()
    grid.release()
    rounds.run(3)
    assert any(event.client == "client-1" and event.verdict is Verdict.TOO_LATE for event in server.report)
    assert server.round == 3
    assert server.ledger.clock != before


def test_an_error_of_a_client_is_reported_in_its_words():
    server, _ = kseed()
    other = lambda context: KSeedClient(Objective(torch.nn.Linear(6, 3), torch.nn.functional.cross_entropy), batches(0))  # noqa: E731
    grid = LocalGrid(lambda: engine.client_app(other), {11: 0})
    GridRounds(grid, server, clients=1, timeout=2.0).run(1)
    assert any("load the run's base model" in event.detail for event in server.report)
    assert int(server.ledger.coefficients.abs().max()) == 0


def test_replies_that_hold_something_else_are_reported_and_change_nothing():
    def strange(record):
        app = flwr_clientapp.ClientApp()
        app.query()(
            lambda m, c: flwr_app.Message(
                flwr_app.RecordDict({"covector": flwr_app.ConfigRecord({"name": "odd"})}), reply_to=m
            )
        )
        app.train()(lambda m, c: flwr_app.Message(flwr_app.RecordDict(record), reply_to=m))
        return app

    for values in ({}, {"message": 3}, {"message": b""}, {"message": b"\x00" * 50}, {"error": 5}):
        server, _ = kseed()
        record = {"covector": flwr_app.ConfigRecord(values)} if values else {}
        GridRounds(LocalGrid(lambda r=record: strange(r), {11: 0}), server, clients=1, timeout=1.0).run(1)
        assert {event.verdict for event in server.report} <= {Verdict.FAILED, Verdict.CORRUPT, Verdict.VANISHED}
        assert len(server.report) == 2
        assert int(server.ledger.coefficients.abs().max()) == 0


def test_too_few_nodes_and_bad_arguments_are_refused():
    server, _ = kseed()
    with pytest.raises(ProtocolError, match="0 of 2 clients"):
        GridRounds(LocalGrid(None, {}), server, clients=2, connect=0.3).run(1)
    with pytest.raises(ArgumentError, match="clients"):
        GridRounds(LocalGrid(None, {}), server, clients=0)


def test_a_process_keeps_only_a_few_clients():
    built = []
    server, make_client = kseed()

    def make(context):
        built.append(int(context.node_config["partition-id"]))
        return make_client(built[-1])

    app = engine.client_app(make, keep=2)
    grid = LocalGrid(lambda: app, {11: 0, 12: 1, 13: 2})
    GridRounds(grid, server, clients=3).run(2)
    reference, _ = embedded(kseed, 2)
    assert server.ledger.digest() == reference.ledger.digest()
    assert built == [0, 1, 2, 0, 1, 2]


def test_the_apps_read_their_settings_from_the_run():
    seen = {}
    server, make_client = kseed()
    apps = engine.flower_apps(
        lambda context: server,
        lambda context: make_client(int(context.node_config["partition-id"])),
        rounds=2,
        clients=2,
        on_end=lambda server, run, context: seen.update(rounds=len(run.rounds), lr=context.run_config["lr"]),
    )
    grid = LocalGrid(lambda: apps[1], {11: 0, 12: 1})
    apps[0](grid, flwr_app.Context(1, 0, {}, flwr_app.RecordDict(), {"lr": 0.5}))
    assert seen == {"rounds": 2, "lr": 0.5}


def test_without_flower_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covector\[federated\]"):
        engine.client_app(lambda context: None)
