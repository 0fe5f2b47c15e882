"""Privacy: the clip bound holds, the noise has its law and cannot be predicted, epsilon grows with releases."""

import importlib.util
import math
import sys

import pytest
import torch

from covector.errors import ArgumentError, MissingExtraError
from covector.federated import GaussianNoise, Grads, KSeedClient, epsilon
from covector.federated.privacy import epsilon as epsilon_of


def test_the_clip_bound_is_respected_before_noise():
    quiet = GaussianNoise(clip=2.0, sigma=1e-12, seed=0)
    for value in (-1e30, -2.0, 0.5, 3.0, 1e30):
        assert quiet.scalar(value) == pytest.approx(min(max(value, -2.0), 2.0), abs=1e-9)
    vector = quiet.vector(torch.full((4,), 1e20))
    assert float(vector.norm()) == pytest.approx(2.0, abs=1e-9)
    assert torch.allclose(quiet.vector(torch.tensor([0.3, 0.4])), torch.tensor([0.3, 0.4], dtype=torch.float64))


def test_the_noise_has_the_announced_spread():
    noise = GaussianNoise(clip=3.0, sigma=0.5, seed=1)
    seen = torch.tensor([noise.scalar(1e9) for _ in range(20000)], dtype=torch.float64)
    assert abs(float(seen.mean()) - 3.0) < 5 * 1.5 / 20000**0.5
    assert abs(float(seen.std()) / 1.5 - 1) < 0.03


def test_noise_cannot_be_predicted_unless_seeded():
    def draws(seed):
        noise = GaussianNoise(1.0, 1.0, seed=seed)
        return [noise.scalar(0.0) for _ in range(4)]

    assert draws(None) != draws(None)
    assert draws(7) == draws(7) != draws(8)


def test_what_leaves_a_private_client_is_noised_and_says_no_loss(federation):
    made = federation("faithful", clients=1, steps=40, weighting="equal", grad_clip=1e-9)
    noise = GaussianNoise(clip=0.5, sigma=4.0, seed=3)
    client = KSeedClient(made.replica, made.clients["client-0"].batches, privacy=noise)
    (message,) = made.server.open_round(["client-0"]).values()
    grads = Grads.from_bytes(client.handle(message), made.header)
    # every step was clipped to nothing by grad_clip: what is sent is noise of spread sigma C, none left out
    assert grads.payload.numbers.numel() == 40
    assert 1.2 < float(grads.payload.numbers.std()) < 3.0
    assert math.isnan(grads.loss)
    assert (grads.batches, grads.examples) == (1, 0)


def test_a_missing_accountant_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covector\[federated\]"):
        epsilon_of(1.0, 10)


def test_epsilon_grows_with_releases_and_falls_with_noise():
    rounds = [epsilon(4.0, count) for count in (0, 1, 10, 100, 1000)]
    assert rounds == sorted(rounds)
    assert rounds[0] == 0.0 < rounds[1]
    noises = [epsilon(sigma, 100) for sigma in (0.5, 1.0, 2.0, 8.0)]
    assert noises == sorted(noises, reverse=True)


def test_epsilon_is_within_the_closed_bound_of_the_gaussian_mechanism():
    sigma, count, delta = 5.0, 200, 1e-5
    # zero-concentrated privacy: rho = count / (2 sigma^2), epsilon <= rho + 2 sqrt(rho ln(1 / delta))
    rho = count / (2 * sigma**2)
    bound = rho + 2 * math.sqrt(rho * math.log(1 / delta))
    assert 0.7 * bound < epsilon(sigma, count, delta) <= bound
    assert "dp_accounting" in sys.modules


@pytest.mark.parametrize("call", [lambda: GaussianNoise(0.0, 1.0), lambda: GaussianNoise(1.0, math.inf)])
def test_parameters_that_protect_nothing_are_refused(call):
    with pytest.raises(ArgumentError):
        call()
    with pytest.raises(ArgumentError):
        epsilon(1.0, -1)
