"""A seeded network of swarm peers in one process: delay, reordering, loss, duplication, truncation, bit flips."""

import heapq
import random

import pytest

from covector import SeedPool
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_membership import Timing

BASE = "0" * 64
PAYLOAD, CONTRIBUTION, SYNC = 10, 1, 4
TIMING = Timing(report=0.5, silence=4.0, start=4.0)


def header(**options):
    return SwarmHeader(BASE, SeedPool(key=3, size=32), **{"lr": 0.25, "key": 9, **options})


def slope(origin, iteration, sample):
    """Any function will do: slopes are facts that one machine states."""
    return random.Random(origin * 1000003 + iteration * 1009 + sample).gauss(0.0, 1.0)


class Network:
    """Runs peers to the end of their run and records the ledger's digest after every iteration."""

    def __init__(self, seed, loss=0.0, duplicate=0.0, corrupt=0.0, delay=0.05, compute=0.1):
        self.random = random.Random(seed)
        self.loss, self.duplicate, self.corrupt = loss, duplicate, corrupt
        self.delay, self.compute = delay, compute
        self.sync_loss = 0.0
        self.now = 0.0
        self.peers, self.dead, self.blocked = {}, set(), set()
        self.checkpoints = {}
        self.statuses = []
        self._queue, self._number = [], 0
        self._begun = {}

    def add(self, peer):
        self.peers[peer.origin] = peer
        self.checkpoints[peer.origin] = {}
        self._at(0.0, self._tick, peer)
        return peer

    def kill(self, origin, linger=0.0):
        """Stop a peer; half of what is on the way from it is lost, the rest may take ``linger`` silences more."""
        self.dead.add(origin)
        self._queue, queue = [], self._queue
        for when, number, action, arguments in queue:
            mine = action == self._deliver and arguments[2] == origin
            if mine and self.random.random() < 0.5:
                continue
            wait = self.random.uniform(0.0, linger * arguments[0].view.timing.silence) if mine else 0.0
            heapq.heappush(self._queue, (when + wait, number, action, arguments))

    def contributes(self, origin):
        """Whether a contribution of this peer is on the way."""
        sent = [arguments for _, _, action, arguments in self._queue if action == self._deliver]
        return any(
            data[PAYLOAD] == CONTRIBUTION for _, data, sender in sent if sender == origin and len(data) > PAYLOAD
        )

    def partition(self, left, right):
        self.blocked |= {(a, b) for a in left for b in right} | {(b, a) for a in left for b in right}

    def heal(self):
        self.blocked.clear()
        self.loss = self.duplicate = self.corrupt = 0.0

    def run(self, until, stop=None):
        """Let time pass; ``stop()`` may end it early."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
            if stop is not None and stop():
                return True
        self.now = until
        return stop is not None and stop()

    def alive(self):
        return [peer for origin, peer in self.peers.items() if origin not in self.dead]

    def _at(self, wait, action, *arguments):
        self._number += 1
        heapq.heappush(self._queue, (self.now + wait, self._number, action, arguments))

    def _tick(self, peer):
        if peer.origin in self.dead:
            return
        peer.tick(self.now)
        self._flush(peer)
        self._at(0.2, self._tick, peer)

    def _work(self, peer, iteration):
        if peer.origin in self.dead or not peer.ready or peer.iteration != iteration:
            return
        slopes = [slope(peer.origin, iteration, sample) for sample in range(peer.samples)]
        peer.contribute(slopes, self.now)
        self._flush(peer)

    def _deliver(self, peer, data, sender):
        if peer.origin in self.dead:
            return
        before = peer.iteration
        self.statuses.append(peer.receive(data, self.now).status)
        assert peer.iteration >= before
        self._flush(peer)

    def _flush(self, peer):
        for letter in peer.drain():
            for other in list(self.peers):
                if other != peer.origin and letter.receiver in (None, other):
                    self._post(peer.origin, other, letter.data)
        digests = self.checkpoints[peer.origin]
        if peer.iteration not in digests:
            digests[peer.iteration] = peer.replica.ledger.digest()
        if peer.ready and self._begun.get(peer.origin) != peer.iteration:
            self._begin(peer)

    def _begin(self, peer):
        self._begun[peer.origin] = peer.iteration
        self._at(self.random.uniform(0.5, 1.5) * self.compute, self._work, peer, peer.iteration)

    def _post(self, sender, receiver, data):
        if (sender, receiver) in self.blocked:
            return
        for _ in range(2 if self.random.random() < self.duplicate else 1):
            if self.random.random() < self.loss:
                continue
            if data[PAYLOAD] == SYNC and self.random.random() < self.sync_loss:
                continue
            wait = self.random.expovariate(1 / self.delay)
            self._at(wait, self._deliver, self.peers[receiver], self._spoil(data), sender)

    def _spoil(self, data):
        if self.random.random() >= self.corrupt:
            return data
        if self.random.random() < 0.3:
            return data[: self.random.randrange(len(data))]
        spoiled = bytearray(data)
        for _ in range(self.random.randint(1, 3)):
            spoiled[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(spoiled)


def swarm(seed, count=3, iterations=12, samples=None, **network):
    """A network of ``count`` founders."""
    founders = {10 + 100 * i: (samples or 1 + i % 2) for i in range(count)}
    net = Network(seed, **network)
    run = header()
    for origin, n in founders.items():
        net.add(Peer(run, origin, n, founders, iterations, TIMING))
    return net


def finished(net):
    return lambda: all(peer.settled for peer in net.alive())


def assert_all_equal(net):
    peers = net.alive()
    assert len({peer.replica.ledger.digest() for peer in peers}) == 1
    assert all(peer.replica.clock == peers[0].replica.clock for peer in peers)
    assert not any(peer.diverged for peer in peers)


def assert_equal_checkpoints(net, first=0):
    """Every iteration closed with the same bits by all survivors that saw it."""
    peers = [net.checkpoints[peer.origin] for peer in net.alive()]
    for iteration in range(first, max(max(digests) for digests in peers) + 1):
        assert len({digests[iteration] for digests in peers if iteration in digests}) == 1, iteration


@pytest.mark.parametrize("seed", range(80))
def test_all_peers_close_every_iteration_with_equal_bits_on_a_bad_network(seed):
    rng = random.Random(seed)
    net = swarm(
        seed,
        rng.choice([2, 3, 4]),
        loss=rng.uniform(0, 0.3),
        duplicate=rng.uniform(0, 0.3),
        corrupt=rng.uniform(0, 0.3),
        delay=rng.choice([0.01, 0.1, 0.3]),
    )
    for peer in net.peers.values():
        peer.view.timing = Timing(report=0.5, silence=60.0)
    assert net.run(400, finished(net))
    assert_all_equal(net)
    assert_equal_checkpoints(net)
    assert net.alive()[0].replica.clock == {origin: 11 for origin in net.peers}


@pytest.mark.parametrize("seed", range(80))
def test_survivors_of_a_killed_peer_have_equal_bits_after_every_iteration(seed):
    """Killed amid a broadcast: some get its last message, some late, and for a while nobody passes it on."""
    rng = random.Random(seed)
    net = swarm(seed, rng.choice([3, 4]), loss=0.1, duplicate=0.1, corrupt=0.05, delay=rng.choice([0.02, 0.2]))
    victim = rng.choice(list(net.peers))
    for peer in net.peers.values():
        peer.view.timing = Timing(report=0.5, silence=rng.choice([3.0, 6.0]), start=4.0)
    net.run(rng.uniform(0.0, 1.2))
    net.run(10.0, lambda: net.contributes(victim))
    net.kill(victim, linger=0.7)
    net.sync_loss = 1.0
    net.run(net.now + rng.uniform(4.0, 10.0))
    net.sync_loss = 0.0
    assert net.run(400, finished(net))
    assert_all_equal(net)
    assert_equal_checkpoints(net)
    assert all(victim not in peer.view.others() for peer in net.alive())


@pytest.mark.parametrize("seed", range(60))
def test_a_newcomer_ends_with_the_bits_of_the_founders(seed):
    rng = random.Random(seed)
    net = swarm(seed, 3, iterations=20, loss=0.1, duplicate=0.1, corrupt=0.1, delay=0.05)
    net.run(rng.uniform(0.0, 1.5))
    newcomer = net.add(Peer(header(), 77, 2, None, 20, TIMING))
    assert net.run(400, finished(net))
    assert_all_equal(net)
    assert 77 in newcomer.replica.clock
    assert_equal_checkpoints(net, first=1)


@pytest.mark.parametrize("seed", range(60))
def test_a_swarm_that_was_split_in_two_ends_with_equal_bits(seed):
    """Both halves suspect each other and go on; nothing that either did is lost."""
    rng = random.Random(seed)
    net = swarm(seed, 4, iterations=30, delay=0.03)
    left, right = [10, 110], [210, 310]
    net.run(rng.uniform(0.3, 1.0))
    net.partition(left, right)
    net.run(net.now + rng.uniform(5.0, 7.0))
    net.heal()
    assert net.run(600, finished(net))
    assert_all_equal(net)


@pytest.mark.parametrize("seed", range(40))
def test_wrongly_suspected_slow_peers_lose_no_contribution(seed):
    net = swarm(seed, 3, iterations=12, loss=0.2, delay=0.6, compute=0.5)
    for peer in net.peers.values():
        peer.view.timing = Timing(report=0.5, silence=1.2, patience=1.5, start=1.0)
    net.run(30)
    net.heal()
    net.delay = 0.02
    for peer in net.peers.values():
        peer.view.timing = TIMING
    assert net.run(600, finished(net))
    assert_all_equal(net)


def test_a_long_separation_strands_the_side_that_is_behind():
    """Logs too short to bridge it: the peer says so instead of mixing two histories."""
    net = swarm(5, 3, iterations=400, delay=0.01)
    for peer in net.peers.values():
        peer._log_bytes = 200
    net.run(1.0)
    net.partition([10], [110, 210])
    net.run(9.0)
    net.heal()
    net.run(11.0)
    assert any(peer.stranded for peer in net.alive())
    fine = [peer for peer in net.alive() if not peer.stranded]
    assert len({tuple(sorted(peer.replica.clock)) for peer in fine}) == 1
    assert not any(peer.diverged for peer in net.alive())


def test_a_spoiled_message_is_refused_and_changes_nothing():
    net = swarm(0, 2, samples=2)
    one, two = net.alive()
    one.contribute([0.5, -0.25], 0.0)
    (letter,) = [letter.data for letter in one.drain()]
    before = (two.replica.ledger.to_bytes(), two.replica.clock, dict(two.members), two.iteration)
    for position in range(len(letter)):
        for bit in range(8):
            spoiled = bytearray(letter)
            spoiled[position] ^= 1 << bit
            assert two.receive(bytes(spoiled), 0.0).status == "refused"
    for length in range(len(letter)):
        assert two.receive(letter[:length], 0.0).status == "refused"
    assert (two.replica.ledger.to_bytes(), two.replica.clock, dict(two.members), two.iteration) == before
    assert two.receive(letter, 0.0).status == "applied"
