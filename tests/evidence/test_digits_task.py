"""The digits task and the comparisons of the two federated experiments, against what can be counted."""

import pytest
import torch

from covector import trees
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.experiments.one_byte_swarm import Story, Swarm
from covector.evidence.fedkseed import decided


@pytest.fixture(scope="module")
def digits():
    return Digits.load()


def spread(dealt):
    """How far the clients' shares of the classes are from equal."""
    counts = torch.stack(
        [torch.bincount(torch.cat([y for _, y in own]), minlength=10) for own in dealt.values() if own]
    )
    return float((counts / counts.sum(1, keepdim=True)).std(0).mean())


def test_dealing_gives_every_training_image_to_exactly_one_client(digits):
    dealt = digits.clients(seed=3, count=20)
    rows = torch.cat([x for own in dealt.values() for x, _ in own])
    labels = torch.cat([y for own in dealt.values() for _, y in own])
    assert len(dealt) == 20
    assert torch.equal(rows.double().sum(0), digits.train[0].double().sum(0))
    assert torch.equal(labels.sort().values, digits.train[1].sort().values)
    assert max(len(y) for own in dealt.values() for _, y in own) <= 32


def test_a_smaller_concentration_makes_clients_differ_more(digits):
    assert spread(digits.clients(0, 10, alpha=0.1)) > 2 * spread(digits.clients(0, 10, alpha=100.0))


def test_the_same_seed_deals_and_starts_alike(digits):
    first, again, other = (digits.clients(seed)["client-00"] for seed in (1, 1, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert [len(y) for _, y in first] != [len(y) for _, y in other] or not torch.equal(first[0][0], other[0][0])
    assert trees.digest(classifier(5).params) == trees.digest(classifier(5).params)


def test_a_difference_within_its_noise_is_not_decided():
    assert decided([0.8, 0.7, 0.9], [0.6, 0.5, 0.7]) is True
    assert decided([0.6, 0.5, 0.7], [0.8, 0.7, 0.9]) is False
    assert decided([0.8, 0.5, 0.9], [0.6, 0.7, 0.8]) is None
    assert decided([0.9], [0.1]) is None
    assert decided([0.8, 0.71, 0.9], [0.6, 0.5, 0.7], by=0.3) is False
    assert decided([0.8, 0.71, 0.9], [0.6, 0.5, 0.7], by=0.2) is None


def test_a_peer_that_joins_and_one_that_is_killed_are_seen_in_the_story(digits):
    swarm = Swarm(digits, Story({1: 1, 11: 1, 21: 1}, iterations=12, joins=3, killed=6), seed=0)
    swarm.run()
    seen = swarm.digests
    assert set(seen) == set(range(12))
    assert set(seen[0]) == {1, 11, 21}
    assert set(seen[11]) == {1, 21, Story.newcomer}
    assert max(i for i, peers in seen.items() if 11 in peers) < 7
    assert all(len(set(peers.values())) == 1 for peers in seen.values())
