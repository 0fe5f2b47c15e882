"""FedKSeed-Pro's probabilities against the published formula, computed independently."""

import math

import numpy as np
import pytest
import torch

from covector.federated import run
from covector.federated.kseed import scalars
from covector.federated.preference import Preference
from covector.federated.screen import is_step
from covector.federated.state import weights_of


def published(histories, bound=1000.0):
    g = np.array([np.abs(np.clip(np.array([0.0, *h]), -bound, bound)).mean() for h in histories])
    v = (g - g.min()) / (g.max() + 1e-10 - g.min())
    e = np.exp(v - v.max())
    return e / e.sum()


@pytest.mark.parametrize("seed", range(10))
def test_probabilities_follow_the_published_formula(seed):
    source = np.random.default_rng(seed)
    preference, histories = Preference(40), [[] for _ in range(40)]
    for _ in range(6):
        ids = source.integers(0, 40, 25)
        rho = source.standard_t(1.2, 25) * 30
        preference.observe(ids.tolist(), torch.from_numpy(rho))
        for i, r in zip(ids, rho, strict=True):
            histories[i].append(r)
    expected = published(histories)
    assert np.allclose(preference.probabilities().numpy(), expected, rtol=1e-6, atol=0)
    assert expected.max() / expected.min() <= math.e


def test_no_seed_is_preferred_more_than_e_times_on_either_wire():
    preference = Preference(8)
    preference.observe([3], torch.tensor([1e9], dtype=torch.float64))
    for compact in (False, True):
        weights = weights_of(preference.table(compact))
        ratio = float(weights.max() / weights.min())
        assert 2.7 < ratio <= math.e * (1 + 1e-6)


def test_the_order_of_replies_does_not_change_a_bit():
    ids, rho = [1, 2, 1, 3, 1], torch.tensor([0.1, 5.0, 0.7, 1e-4, 900.0], dtype=torch.float64)
    one, other = Preference(4), Preference(4)
    one.observe(ids, rho)
    for i in (4, 2, 0, 3, 1):
        other.observe([ids[i]], rho[i : i + 1])
    assert torch.equal(one.probabilities(), other.probabilities())


@pytest.mark.parametrize("wire", ["faithful", "compact"])
def test_a_run_announces_uniform_first_and_then_the_formula(federation, wire):
    made = federation(f"pro-{wire}")
    assert made.server.history.settings(1)[0].table is None
    histories = [[] for _ in range(made.header.pool.size)]
    original = made.server._absorb

    def spy(commit, replies, late):
        for entry in commit.entries:
            rho = scalars(made.header, commit.settings, entry.payload)
            ids = entry.payload.ids
            if ids is None:
                from covector.federated.commit import ids_of

                ids = torch.tensor(ids_of(made.header, commit.settings, entry.client, entry.payload))
            for i, r, taken in zip(ids.tolist(), rho.tolist(), is_step(entry.payload).tolist(), strict=True):
                if taken:
                    histories[i].append(r)
        original(commit, replies, late)

    made.server._absorb = spy
    run(made.server, made.clients, 3)
    expected = published(histories)
    weights = weights_of(made.server.history.settings(4)[0].table)
    seen = (weights / weights.sum()).numpy()
    # fp32 on the faithful wire; steps of 1/255 in the exponent on the compact one
    assert np.allclose(seen, expected, rtol=1e-6 if wire == "faithful" else 1 / 255, atol=0)
    assert len({round(p, 9) for p in expected}) > 5
