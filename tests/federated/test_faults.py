"""Faults: every bad message has a defined outcome, a line in the report, and changes nothing."""

import random
import struct
import zlib

import pytest
import torch

from covector.errors import CovectorError, ProtocolError
from covector.federated import Commit, Grads, Join, RunHeader, Verdict, run
from covector.federated.payloads import Kind, Payload


def server_state(server):
    return (
        server.ledger.digest(),
        dict(server.ledger.clock),
        server.round,
        server.opened,
        {n: reply.to_bytes(server.header) for n, reply in server.pending.items()},
        {key: reply.to_bytes(server.header) for key, reply in server.late_pending.items()},
        [server.roster.name(n) for n in range(len(server.roster))],
        server.history.median.value,
    )


def client_state(client):
    return client.round, client.header, None if client.ledger is None else client.ledger.digest()


def opened(made, rounds=2):
    """A federation in the middle of a round: (messages down, replies up)."""
    run(made.server, made.clients, rounds)
    down = made.server.open_round(list(made.clients))
    return down, {name: made.clients[name].handle(data) for name, data in down.items()}


def damaged(data, source):
    """A truncation, some flipped bits, a cut-out, a doubled part or random bytes."""
    way = source.randrange(5)
    if way == 0:
        return data[: source.randrange(len(data))]
    if way == 1:
        changed = bytearray(data)
        for bit in source.sample(range(8 * len(data)), source.randint(1, 8)):
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)
    a, b = sorted(source.sample(range(len(data)), 2))
    return (data[:a] + data[b:], data[:b] + data[a:], data[:a] + source.randbytes(b - a) + data[b:])[way - 2]


def forged(data, source):
    """Changed payload bytes under a valid length and checksum."""
    payload = bytearray(data[10:-4])
    for _ in range(source.randint(1, 6)):
        payload[source.randrange(8, len(payload))] = source.choice((0, 1, 127, 128, 255))
    head = data[:6] + struct.pack("<I", len(payload)) + bytes(payload)
    return head + struct.pack("<I", zlib.crc32(head))


def test_damaged_replies_are_refused_and_change_nothing(federation, kind):
    made = federation(kind)
    _, up = opened(made)
    before, lines, source = server_state(made.server), len(made.server.report), random.Random(kind)
    for case in range(200):
        outcome = made.server.receive("client-1", damaged(up["client-1"], source))
        assert not outcome.accepted
        assert outcome.verdict in (Verdict.CORRUPT, Verdict.WRONG_VERSION)
        assert len(made.server.report) == lines + case + 1
    assert server_state(made.server) == before
    assert all(made.server.receive(name, data).accepted for name, data in up.items())


def test_damaged_rounds_are_refused_by_clients_and_change_nothing(federation, kind):
    made = federation(kind)
    run(made.server, made.clients, 2)
    down = made.server.open_round(list(made.clients))
    client, source = made.clients["client-1"], random.Random(kind)
    before = client_state(client)
    for _ in range(200):
        with pytest.raises(CovectorError):
            client.handle(damaged(down["client-1"], source))
    assert client_state(client) == before
    assert made.server.receive("client-1", client.handle(down["client-1"])).accepted


def test_forged_replies_raise_nothing_and_are_taken_whole_or_not_at_all(federation, kind):
    made = federation(kind)
    _, up = opened(made)
    source, taken = random.Random(kind), 0
    before = server_state(made.server)
    for _ in range(200):
        outcome = made.server.receive("client-1", forged(up["client-1"], source))
        if outcome.accepted:
            taken += 1
            made.server.pending.pop(1)
        assert server_state(made.server) == before
    assert taken < 200


def test_forged_rounds_raise_only_our_errors(federation, kind):
    made = federation(kind, steps=2)
    run(made.server, made.clients, 2)
    down = made.server.open_round(list(made.clients))
    client, source, refused = made.clients["client-1"], random.Random(kind), 0
    ledger, header, round, settings = client.ledger, client.header, client.round, client._settings
    for _ in range(60):
        client.ledger, client.header, client.round, client._settings = ledger.copy(), header, round, settings
        try:
            answer = client.handle(forged(down["client-1"], source))
        except CovectorError:
            refused += 1
            assert client_state(client) == (round, header, ledger.digest())
        else:
            assert answer[:4] in (b"CVFG", b"CVFJ")
    assert refused > 5


def test_duplicates_and_replays_are_ignored(federation, kind):
    made = federation(kind)
    _, up = opened(made)
    for name, data in up.items():
        assert made.server.receive(name, data).accepted
        assert made.server.receive(name, data).verdict is Verdict.DUPLICATE
    made.server.close_round()
    before = server_state(made.server)
    for name, data in up.items():
        assert made.server.receive(name, data).verdict is Verdict.DUPLICATE
    assert server_state(made.server) == before
    made.server.open_round(list(made.clients))
    before = server_state(made.server)
    for _ in range(10):
        for name, data in up.items():
            assert not made.server.receive(name, data).accepted
    assert server_state(made.server) == before


def test_wrong_senders_rounds_runs_and_versions_have_their_verdicts(federation, kind):
    made = federation(kind)
    _, up = opened(made)
    server, data = made.server, up["client-1"]
    grads = Grads.from_bytes(data, made.header)
    future = Grads(9, 1, 0, grads.batches, 0.0, grads.payload).to_bytes(made.header)
    other = RunHeader("cd" * 32, made.header.pool, 0.1)
    foreign = data[:10] + other.id + data[18:-4]
    version = data[:4] + struct.pack("<H", 7) + data[6:-4]
    sums = [body + struct.pack("<I", zlib.crc32(body)) for body in (foreign, version)]
    before = server_state(server)
    cases = [
        ("stranger", data, Verdict.UNKNOWN_CLIENT),
        ("client-2", data, Verdict.WRONG_CLIENT),
        ("client-1", future, Verdict.FUTURE),
        ("client-1", sums[0], Verdict.WRONG_RUN),
        ("client-1", sums[1], Verdict.WRONG_VERSION),
        ("client-1", made.header.to_bytes(), Verdict.INVALID),
        ("client-1", Join(other.id, 0).to_bytes(), Verdict.WRONG_RUN),
        ("client-1", b"", Verdict.CORRUPT),
    ]
    for name, message, verdict in cases:
        outcome = server.receive(name, message)
        assert (outcome.verdict, outcome.accepted) == (verdict, False)
        assert server.report[-1].verdict is verdict
    assert server_state(server) == before


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        ("faithful", Payload(Kind.EXPLICIT, torch.ones(1), torch.tensor([64])), "seed 64 is outside the pool of 64"),
        ("faithful", Payload(Kind.EXPLICIT, torch.ones(5), torch.arange(5)), "5 scalars, the run has 4 steps"),
        ("faithful", Payload(Kind.SCALARS, torch.ones(4)), "kind SCALARS in a run with explicit ids"),
        ("compact", Payload(Kind.SCALARS, torch.ones(3)), "3 scalars, the run has 4 steps"),
        ("compact", Payload(Kind.BYTES, torch.ones(5, dtype=torch.uint8)), "5 scalars, the run has 4 steps"),
        ("compact", Payload(Kind.EXPLICIT, torch.ones(4), torch.arange(4)), "in a run with derived ids"),
        ("compact", Payload(Kind.UNITS, torch.ones(4).long(), torch.arange(4)), "kind UNITS"),
        ("sketch", Payload(Kind.COORDINATES, torch.ones(31)), "31 coordinates, the sketch has 32"),
        ("sketch", Payload(Kind.SCALARS, torch.ones(3)), "3 scalars, the run has 4 steps"),
    ],
)
def test_payloads_that_do_not_fit_the_run_are_refused_with_the_reason(federation, kind, payload, reason):
    made = federation(kind)
    opened(made)
    before = server_state(made.server)
    outcome = made.server.receive("client-1", Grads(3, 1, 0, 1, 0.0, payload).to_bytes(made.header))
    assert outcome.verdict is Verdict.INVALID
    assert reason in outcome.detail
    assert server_state(made.server) == before


def test_bytes_before_a_scale_is_known_are_refused(federation):
    made = federation("compact")
    made.server.open_round(["client-0"])
    payload = Payload(Kind.BYTES, torch.ones(4, dtype=torch.uint8))
    outcome = made.server.receive("client-0", Grads(1, 0, 0, 1, 0.0, payload).to_bytes(made.header))
    assert outcome.detail == "one-byte scalars in a round without a scale"


def test_numbers_and_batches_must_agree(federation):
    made = federation("compact")
    made.server.open_round(["client-0"])
    for batches, count in ((0, 4), (3, 0), (0, 1)):
        grads = Grads(1, 0, 0, batches, 0.0, Payload(Kind.SCALARS, torch.ones(count)))
        assert made.server.receive("client-0", grads.to_bytes(made.header)).verdict is Verdict.INVALID


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_scalars_are_left_out_and_reported(federation, value):
    for kind in ("faithful", "compact", "sketch"):
        made = federation(kind, code="fp32") if kind == "compact" else federation(kind)
        made.server.open_round(["client-1"])
        numbers = torch.tensor([1.0, value, 2.0, 3.0])
        ids = torch.arange(4) if kind == "faithful" else None
        payload = Payload(Kind.EXPLICIT if kind == "faithful" else Kind.SCALARS, numbers, ids)
        number = made.server.roster.number("client-1")
        outcome = made.server.receive("client-1", Grads(1, number, 0, 1, 0.0, payload).to_bytes(made.header))
        assert outcome.accepted
        (event,) = made.server.report
        assert str(event) == "round 1: client-1: non-finite numbers left out (1 of 4)"
        made.server.close_round()
        assert int(made.server.ledger.coefficients.abs().sum()) > 0


def test_coordinates_that_are_not_finite_count_as_no_answer(federation):
    made = federation("sketch")
    made.server.open_round(["client-0"])
    numbers = torch.ones(32)
    numbers[5] = float("nan")
    grads = Grads(1, 0, 0, 1, 0.0, Payload(Kind.COORDINATES, numbers))
    made.server.receive("client-0", grads.to_bytes(made.header))
    commit = Commit.from_bytes(made.server.close_round(), made.header)
    assert (commit.entries, commit.displacement) == ((), None)


def test_clients_that_vanish_or_are_empty_leave_the_others_their_weight(federation, kind):
    made = federation(kind)
    made.clients["client-2"].batches = []
    down = made.server.open_round(list(made.clients))
    for name in ("client-0", "client-2"):
        made.server.receive(name, made.clients[name].handle(down[name]))
    commit = Commit.from_bytes(made.server.close_round(), made.header)
    assert [(entry.client, entry.weight) for entry in commit.entries] == [(0, 1 << 16)]
    assert [str(event) for event in made.server.report] == [
        "round 1: client-2: has no data",
        "round 1: client-1: did not answer",
    ]


def test_a_round_in_which_nobody_answers_still_closes(federation, kind):
    made = federation(kind)
    made.server.open_round(list(made.clients))
    made.server.close_round()
    assert (made.server.round, int(made.server.ledger.coefficients.abs().sum())) == (1, 0)
    run(made.server, made.clients, 2)
    assert int(made.server.ledger.coefficients.abs().sum()) > 0


def test_late_replies_are_refused_by_default(federation, kind):
    made = federation(kind)
    _, up = opened(made)
    made.server.receive("client-0", up["client-0"])
    made.server.close_round()
    before = server_state(made.server)
    assert made.server.receive("client-1", up["client-1"]).verdict is Verdict.TOO_LATE
    assert server_state(made.server) == before


def test_late_replies_are_applied_with_half_the_weight_a_round(federation, kind):
    made = federation(kind, server={"late": "apply"}, weighting="equal")
    _, up = opened(made)
    for name in ("client-0", "client-2"):
        made.server.receive(name, up[name])
    made.server.close_round()
    down = made.server.open_round(["client-0"])
    made.server.receive("client-0", made.clients["client-0"].handle(down["client-0"]))
    assert made.server.receive("client-1", up["client-1"]).verdict is Verdict.LATE
    assert made.server.receive("client-1", up["client-1"]).verdict is Verdict.DUPLICATE
    commit = Commit.from_bytes(made.server.close_round(), made.header)
    if kind != "sketch":
        late, on_time = commit.entries
        assert (late.client, late.age, late.weight) == (1, 1, (1 << 15) >> 1)
        assert (on_time.client, on_time.age, on_time.weight) == (0, 0, 1 << 16)
    assert made.server.receive("client-1", up["client-1"]).verdict in (Verdict.DUPLICATE, Verdict.TOO_LATE)
    # everybody else replays the late entry to the same bits
    down = made.server.open_round(list(made.clients))
    for name, data in down.items():
        made.clients[name].handle(data)
        assert made.clients[name].ledger.digest() == made.server.ledger.digest()


def test_replies_older_than_the_memory_or_never_asked_for_are_refused(federation):
    made = federation("compact", server={"late": "apply", "max_age": 2})
    _, up = opened(made, rounds=1)
    made.server.receive("client-0", up["client-0"])
    made.server.close_round()
    for _ in range(3):
        made.server.open_round(["client-0"])
        made.server.close_round()
    assert made.server.receive("client-1", up["client-1"]).verdict is Verdict.TOO_LATE
    made.server.open_round(["client-0"])
    grads = Grads.from_bytes(up["client-1"], made.header)
    uninvited = Grads(made.server.round + 1, 1, 0, 2, 0.0, grads.payload).to_bytes(made.header)
    assert made.server.receive("client-1", uninvited).verdict is Verdict.NOT_ASKED


def test_a_client_that_raises_does_not_stop_the_run(federation, kind):
    made = federation(kind)

    class Broken:
        def handle(self, data):
            raise RuntimeError("out of memory")

    made.clients["client-1"] = Broken()
    result = run(made.server, made.clients, 2)
    assert [sorted(metrics.losses) for metrics in result.rounds] == [["client-0", "client-2"]] * 2
    lines = [str(event) for event in result.rounds[0].events]
    assert lines == [
        "round 1: client-1: failed (RuntimeError: out of memory)",
        "round 1: client-1: did not answer",
    ]


def test_a_run_through_a_lossy_line_goes_on_and_all_that_answer_agree(federation, kind):
    made = federation(kind)
    source = random.Random(kind)

    def faults(way, round, client, data):
        draw = source.random()
        if draw < 0.15:
            return []
        if draw < 0.3:
            return [damaged(data, source)]
        return [data, data] if draw < 0.45 else [data]

    run(made.server, made.clients, 12, faults=faults)
    assert made.server.round == 12
    verdicts = {event.verdict for event in made.server.report}
    assert {Verdict.VANISHED, Verdict.DUPLICATE} <= verdicts
    down = made.server.open_round(list(made.clients))
    for name, data in down.items():
        answer = made.clients[name].handle(data)
        if answer[:4] == b"CVFJ":
            answer = made.clients[name].handle(made.server.receive(name, answer).reply)
        assert made.clients[name].ledger.digest() == made.server.ledger.digest()


def test_closing_a_round_that_is_not_open_is_refused(federation):
    with pytest.raises(ProtocolError, match="open_round"):
        federation().server.close_round()
