"""The swarm against closed forms: dealing samples to peers, plain MeZO, the byte code, and messages of any kind."""

import math
import random

import pytest
import torch
from torch import nn

from covector import Objective, SeedPool, SketchPool, trees
from covector.errors import ArgumentError, CorruptionError, MismatchError, ProtocolError
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_membership import Timing
from covector.federated.swarm_messages import Contribution, Join, Refusal, Report, Sync, decode
from covector.federated.swarm_replica import Replica
from covector.federated.swarm_worker import Worker, exchange
from covector.gradients.framing import frame, unframe

POOLS = {"sketch": SketchPool(key=3, size=32), "seeds": SeedPool(key=3, size=64)}
BASE = "0" * 64


def regression():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    return Objective(module, nn.functional.mse_loss)


def batches(count):
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(8, 6, generator=generator) for _ in range(count)]
    return [(x, x[:, :1] - 2 * x[:, 1:2]) for x in inputs]


def swarm(pool, founders, lr=0.02, **options):
    """Workers in one process, each with the same start."""
    workers = []
    for origin, samples in founders.items():
        objective = regression()
        header = SwarmHeader.of(objective.params, pool, lr, key=11, **options)
        workers.append(Worker(Peer(header, origin, samples, dict(founders)), objective))
    return workers


def run(workers, data, iterations):
    """``data``: one batch a sample, dealt to the workers in order."""
    for iteration in range(iterations):
        dealt = iter(data)
        for worker in workers:
            worker.refresh()
        pending = [(w, w.measure([next(dealt) for _ in range(w.peer.samples)])[1]) for w in workers]
        for worker, slopes in pending:
            worker.contribute(slopes, now=float(iteration))
        exchange([worker.peer for worker in workers], now=float(iteration))
    for worker in workers:
        worker.refresh()
        assert worker.peer.iteration == iterations


@pytest.mark.parametrize("divisor", ["sqrt", "mean"])
@pytest.mark.parametrize("pool", list(POOLS))
def test_n_workers_with_one_sample_equal_one_worker_with_n_samples(pool, divisor):
    many = swarm(POOLS[pool], {5: 1, 6: 1, 7: 1, 8: 1}, divisor=divisor)
    one = swarm(POOLS[pool], {5: 4}, divisor=divisor)
    run(many, batches(4), 6)
    run(one, batches(4), 6)
    digests = {trees.digest(worker.objective.params) for worker in many + one}
    assert len(digests) == 1
    assert digests != {trees.digest(regression().params)}


@pytest.mark.parametrize("pool", list(POOLS))
def test_one_worker_with_one_sample_is_mezo(pool):
    """Against a loop that overwrites the parameters, as MeZO is published, with the scalar as the byte says it."""
    (worker,) = swarm(POOLS[pool], {5: 1})
    plain = regression()
    header, (batch,) = worker.peer.header, batches(1)
    for _ in range(8):
        worker.refresh()
        z = worker.peer.directions()[0].dense(plain.params)
        _, slopes = worker.measure([batch])
        worker.peer.contribute(slopes, now=0.0)
        sent = decode(worker.peer.drain()[0].data, header.tag).codes[0]
        magnitude = 0.0 if sent % 128 == 0 else 2.0 ** ((sent % 128 - 64) / 8)
        with torch.no_grad():
            trees.axpy_(plain.params, z, header.eps)
            plus = float(plain(batch))
            trees.axpy_(plain.params, z, -2 * header.eps)
            minus = float(plain(batch))
            trees.axpy_(plain.params, z, header.eps)
        slope = (plus - minus) / (2 * header.eps)
        # the float32 losses of the two routes differ in their last bits
        assert slopes[0] == pytest.approx(slope, abs=2e-3)
        assert magnitude == pytest.approx(abs(slope), rel=0.1, abs=0.005)
        trees.axpy_(plain.params, z, -header.lr * math.copysign(magnitude, 64 - (sent & 128)))
        worker.refresh()
        for name, p in plain.params.items():
            assert torch.allclose(p, worker.objective.params[name], atol=1e-6)


def test_a_swarm_learns():
    workers = swarm(SketchPool(key=3, size=32), {5: 2, 900: 2}, lr=0.01, divisor="mean")
    before = workers[0].objective(batches(1)[0]).item()
    run(workers, batches(4), 60)
    assert workers[1].objective(batches(1)[0]).item() < before / 2


def test_the_scalars_of_a_contribution_add_up_to_the_update_of_the_paper():
    header = SwarmHeader(BASE, SketchPool(1, 16), lr=0.1)
    for total, exponent in ((1, 0), (3, 2), (30, -5), (65535, 0)):
        exact = 0.1 * 2.0**exponent / math.sqrt(total) * 2.0**32
        assert header.scale_units(total, exponent) == pytest.approx(exact, abs=1.0)
    mean = SwarmHeader(BASE, SketchPool(1, 16), lr=0.1, divisor="mean")
    assert mean.scale_units(30, 3) == pytest.approx(0.8 / 30 * 2.0**32, abs=1.0)


def test_the_byte_is_unbiased():
    header = SwarmHeader(BASE, SketchPool(1, 16), lr=0.5)
    slopes = torch.full((20000,), 0.7371, dtype=torch.float64)
    units = -header.units(header.encode(slopes, 0, 0, 0), 1, 0).double()
    relative = units.mean() / (0.7371 * 0.5 * 2.0**32) - 1
    assert abs(float(relative)) < 1e-3
    assert units.unique().numel() == 2


@pytest.mark.parametrize("lr", [1e-8, 1e6, -1.0, float("nan")])
def test_a_learning_rate_that_the_ledger_cannot_resolve_is_refused(lr):
    with pytest.raises(ArgumentError, match=r"quantum|lr"):
        SwarmHeader(BASE, SketchPool(1, 16), lr=lr)


def test_a_header_survives_its_bytes_and_no_flipped_bit_does():
    header = SwarmHeader(BASE, SeedPool(-5, 100, "binomial"), lr=0.3, key=2**63, divisor="mean", most_peers=7)
    data = header.to_bytes()
    assert SwarmHeader.from_bytes(data) == header
    assert len(data) <= 128
    for position in range(len(data)):
        with pytest.raises(CorruptionError):
            SwarmHeader.from_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])


def pair(samples=1, **options):
    header = SwarmHeader(BASE, SketchPool(1, 16), lr=0.25, **options)
    founders = {1: samples, 2: samples}
    return [Peer(header, origin, samples, founders) for origin in founders]


def letters(peer):
    return [letter.data for letter in peer.drain()]


def state(peer):
    replica = peer.replica
    return replica.ledger.to_bytes(), replica.clock, dict(peer.members), peer.iteration, dict(peer.view.applicants)


def test_a_contribution_takes_one_byte_a_scalar_and_a_fixed_header():
    sizes = {}
    for samples in (1, 30):
        one, _ = pair(samples)
        one.contribute([0.5] * samples, 0.0)
        sizes[samples] = len(letters(one)[0])
    assert sizes == {1: 44, 30: 73}


def test_a_replayed_contribution_changes_nothing():
    one, two = pair()
    one.contribute([0.5], 0.0)
    (data,) = letters(one)
    assert two.receive(data, 0.0).status == "applied"
    before = state(two)
    assert two.receive(data, 0.0).status == "known"
    assert state(two) == before


def test_a_second_contribution_to_the_same_iteration_is_refused():
    one, two = pair()
    twin = pair()[0]
    one.contribute([0.5], 0.0)
    twin.contribute([-3.0], 0.0)
    assert two.receive(letters(one)[0], 0.0).status == "applied"
    before = state(two)
    receipt = two.receive(letters(twin)[0], 0.0)
    assert receipt.status == "refused"
    assert "two contributions" in receipt.reason
    assert state(two) == before


def test_a_contribution_with_a_gap_before_it_is_asked_for():
    one, two = pair()
    one.contribute([0.5], 0.0)
    two.contribute([0.25], 0.0)
    (lost,), (answer,) = letters(one), letters(two)
    one.receive(answer, 0.0)
    one.contribute([0.125], 1.0)
    assert two.receive(letters(one)[-1], 1.0).status == "early"
    exchange([one, two], 1.0)
    assert two.replica.known(1) == 1
    assert two.receive(lost, 1.0).status == "known"


def test_what_is_sent_to_a_laggard_is_the_smaller_of_log_and_ledger():
    one, two = pair()
    laggard = pair()[1]
    sizes = []
    for iteration in range(12):
        for peer in (one, two):
            peer.contribute([0.5 * (iteration % 3) - 0.4], float(iteration))
        exchange([one, two], float(iteration))
        one._send_missing(2, {})
        (data,) = letters(one)
        message = decode(data, one.header.tag)
        sizes.append(len(data))
        assert bool(message.ledger) == (iteration > 0)
    assert laggard.receive(data, 20.0).status == "applied"
    assert laggard.replica.ledger.digest() == one.replica.ledger.digest()
    assert max(sizes) < 300


def test_a_newcomer_with_another_header_is_told_so():
    one, _ = pair()
    other = SwarmHeader(BASE, SketchPool(2, 16), lr=0.25)
    newcomer = Peer(other, 9, 1)
    newcomer.tick(0.0)
    (join,) = letters(newcomer)
    before = state(one)
    assert one.receive(join, 0.0).status == "refused"
    assert state(one) == before
    assert newcomer.receive(letters(one)[0], 0.0).status == "applied"
    assert "header differs" in newcomer.refusal


def test_messages_of_another_run_are_refused():
    one, _ = pair()
    stranger = pair(key=99)[1]
    stranger.contribute([1.0], 0.0)
    before = state(one)
    assert "belongs to run" in one.receive(letters(stranger)[0], 0.0).reason
    assert state(one) == before


def test_a_leaving_member_is_not_waited_for():
    one, two = pair()
    one.contribute([0.5], 0.0, leave=True)
    two.contribute([0.5], 0.0)
    exchange([one, two], 0.0)
    assert list(two.members) == [2]
    two.contribute([0.25], 1.0)
    assert two.iteration == 2
    with pytest.raises(ProtocolError, match="ready"):
        one.contribute([0.5], 1.0)


def test_slopes_that_are_not_finite_count_as_zero():
    peer = Peer(SwarmHeader(BASE, SketchPool(1, 16), lr=0.25), 1, 2, {1: 2})
    peer.contribute([float("nan"), float("inf")], 0.0)
    assert int(peer.replica.ledger.coefficients.abs().max()) == 0
    assert peer.replica.clock == {1: 0}


def test_a_scale_beyond_the_header_is_refused():
    one, _ = pair()
    wild = Contribution(2, 0, -1, 1, one.header.scale_exponent + 9, b"@")
    before = state(one)
    assert "beyond what this run allows" in one.receive(wild.to_bytes(one.header.tag), 0.0).reason
    assert state(one) == before
    with pytest.raises(ArgumentError):
        one.set_scale(9)


def test_more_peers_than_the_header_allows_are_refused():
    one, _ = pair(most_peers=2)
    assert "bounds" in one.receive(Join(9, 1, one.header.hash).to_bytes(one.header.tag), 0.0).reason
    assert one.receive(Contribution(1, 0, -1, 2, 0, b"@").to_bytes(one.header.tag), 0.0).status == "applied"
    assert one.receive(Contribution(2, 0, -1, 2, 0, b"@").to_bytes(one.header.tag), 0.0).status == "applied"
    assert "more peers" in one.receive(Contribution(3, 1, -1, 2, 0, b"@").to_bytes(one.header.tag), 0.0).reason


def test_a_ledger_of_another_run_is_refused():
    one, _ = pair()
    other = SwarmHeader(BASE, SketchPool(2, 16), lr=0.25).ledger()
    other.add_([4], torch.tensor([100]))
    other.clock["0" * 15 + "7"] = 3
    before = state(one)
    receipt = one.receive(Sync(5, {1: 1}, other.to_bytes()).to_bytes(one.header.tag), 0.0)
    assert "does not belong to this run" in receipt.reason
    assert state(one) == before


def test_differing_ledgers_under_equal_clocks_are_noticed():
    one, two = pair()
    for peer in (one, two):
        peer.contribute([0.5], 0.0)
    exchange([one, two], 0.0)
    two.replica.ledger.coefficients[3] += 1
    one.receive(two.report().to_bytes(one.header.tag), 0.0)
    assert one.diverged


def test_the_replica_of_a_set_of_contributions_does_not_depend_on_their_order():
    header = SwarmHeader(BASE, SeedPool(3, 64), lr=0.25)
    rng = random.Random(4)
    made = [Contribution(o, i, i - 1, 3, rng.randint(-8, 8), rng.randbytes(2)) for o in range(3) for i in range(5)]
    digests = set()
    for _ in range(20):
        replica, waiting = Replica(header), list(made)
        while waiting:
            rng.shuffle(waiting)
            waiting = [c for c in waiting if replica.add(c) == "early"]
            replica.close(rng.randrange(5))
        replica.close(4)
        digests.add((replica.ledger.digest(), tuple(sorted(replica.clock.items()))))
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(8))
def test_no_bytes_make_a_peer_raise_or_grow(seed):
    """Whole messages with random payload bytes changed and the checksum made right again."""
    rng = random.Random(seed)
    one, two = pair()
    third = Peer(one.header, 3, 1)
    for iteration in range(3):
        for peer in (one, two):
            peer.contribute([rng.gauss(0, 1)], float(iteration))
        exchange([one, two], float(iteration))
    one._send_missing(2, {})
    one._send_missing(2, {1: 0, 5: 0})
    one.tick(50.0)
    third.tick(0.0)
    seeds = letters(one) + letters(third) + [Refusal(1, "no").to_bytes(one.header.tag)]
    seeds.append(Sync(3, {1: 1}, one.replica.ledger.to_bytes()).to_bytes(one.header.tag))
    for _ in range(400):
        payload = bytearray(unframe(rng.choice(seeds), b"CVSW", 1))
        for _ in range(rng.randint(1, 3)):
            payload[rng.randrange(len(payload))] = rng.choice([0, 1, 255, rng.randrange(256)])
        payload[1:5] = one.header.tag.to_bytes(4, "little")
        cut = rng.choice([len(payload), rng.randrange(1, len(payload))])
        peer = rng.choice([one, two, third])
        status = peer.receive(frame(b"CVSW", 1, bytes(payload[:cut])), 60.0).status
        assert status in ("applied", "known", "early", "refused")
        peer.tick(60.0)
        if peer.ready:
            peer.contribute([0.5], 60.0)
        assert sum(map(len, letters(peer))) < 20000
        assert len(peer.view.reports) + len(peer.view.applicants) + len(peer.members) < 3 * 256


def test_messages_survive_their_bytes():
    contribution = Contribution(2**64 - 1, 7, 3, 9, -4, b"abc", True, {5: 2})
    report = Report(3, 8, b"12345678", {1: 7, 2: 0}, frozenset({2}))
    sync = Sync(4, {1: 2}, b"ledger", (contribution.to_bytes(5), b""))
    for message in (contribution, report, sync, Join(1, 2, bytes(32)), Refusal(4, "größer")):
        assert decode(message.to_bytes(5), 5) == message


def test_founders_must_hold_the_peer_itself():
    header = SwarmHeader(BASE, SketchPool(1, 16), lr=0.25)
    with pytest.raises(ArgumentError, match="founders"):
        Peer(header, 1, 1, {2: 1})
    with pytest.raises(ArgumentError, match="silence"):
        Timing(report=2.0, silence=1.0)


def test_a_worker_refuses_another_base_model():
    objective = regression()
    header = SwarmHeader(BASE, SketchPool(1, 16), lr=0.25)
    with pytest.raises(MismatchError, match="SHA-256"):
        Worker(Peer(header, 1, 1, {1: 1}), objective)
