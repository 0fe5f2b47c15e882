"""Formulas of random matrix theory against matrices drawn, and a batch's spectrum where its noise is known."""

import math

import pytest
import torch

from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.landscape import (
    BatchSpectrum,
    batch_spectrum,
    effective_size,
    heavy_ball,
    lr_for_batch,
    marchenko_pastur_top,
    wigner_top,
)
from covector.linalg import eigsh
from covector.objective import Objective

P, SIGMA = 300, 0.2


def symmetric(generator, scale):
    raw = torch.randn(P, P, generator=generator, dtype=torch.float64) * scale
    return (raw + raw.mT) / math.sqrt(2)


@pytest.mark.parametrize("value", [0.1, 2.0, 10.0])
@pytest.mark.parametrize("size", [4, 64])
def test_the_top_of_a_matrix_with_symmetric_noise(value, size):
    generator = torch.Generator().manual_seed(0)
    tops = []
    for _ in range(6):
        matrix = symmetric(generator, SIGMA / math.sqrt(size))
        matrix[0, 0] += value
        tops.append(torch.linalg.eigvalsh(matrix)[-1])
    expected = wigner_top(value, P * SIGMA**2, size)
    assert float(torch.stack(tops).mean()) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("size", [50, 200, 800])
def test_the_top_of_a_sample_covariance(size):
    generator = torch.Generator().manual_seed(0)
    tops = []
    for _ in range(30):
        samples = torch.randn(size, P, generator=generator, dtype=torch.float64) * math.sqrt(0.05)
        samples[:, 0] *= 10.0  # variance 5
        tops.append(torch.linalg.matrix_norm(samples, 2).square() / size)
    assert float(torch.stack(tops).mean()) == pytest.approx(marchenko_pastur_top(5.0, 0.05, P, size), rel=0.12)


def test_a_value_in_the_noise_gives_the_edge_on_its_own_side():
    assert wigner_top(0.01, 16.0, 16) == 2.0
    assert wigner_top(-0.01, 16.0, 16) == -2.0
    assert wigner_top(1.0, 16.0, 16) == 2.0  # the two branches meet
    assert marchenko_pastur_top(0.05 * (1 + 1), 0.05, 100, 100) == pytest.approx(0.2)


def test_all_examples_have_no_noise():
    spectrum = BatchSpectrum(2.0, -1.0, 5.0, 0.0, examples=100, products=0)
    assert spectrum.largest(100) == 2.0
    assert spectrum.smallest(100) == -1.0
    assert spectrum.largest_lr(100, momentum=0.9) == pytest.approx(1.9)
    assert spectrum.largest(10) > spectrum.largest(20) > 2.0
    assert spectrum.smallest_damping(10) > 1.0


def noisy_parabola(examples, seed=0):
    """Examples ``x^T (A + E_i) x / 2`` whose noise is known: a batch holds the indices of examples."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.diag(torch.linspace(-0.5, 1.0, P, dtype=torch.float64))
    matrix[-1, -1] = 4.0
    noises = torch.stack([symmetric(generator, SIGMA) for _ in range(examples)])

    def loss(params, batch):
        x = params["x"]
        return (x @ (matrix + noises[batch["index"]].mean(0)) @ x) / 2

    return Objective.from_function(loss, {"x": torch.randn(P, generator=generator, dtype=torch.float64)}), noises


@pytest.mark.parametrize("along", ["top", "random"])
def test_the_noise_of_a_batch_is_measured_without_bias_and_foretells_its_top(along):
    examples, size = 24, 4
    objective, noises = noisy_parabola(examples)
    batches = [{"index": part} for part in torch.arange(examples).split(size)]
    found = batch_spectrum(objective, batches, probes=24, along=along)
    # the sample variance of H_i v: over all unit vectors its mean is that of the squared elements, times P
    scatter = noises - noises.mean(0)
    if along == "random":
        exact = float(scatter.square().sum() / (examples - 1) / P)
    else:
        top = eigsh(Hessian(objective, batches), 1, "LA", tol=1e-6).vectors[:, 0]
        images = scatter @ top
        exact = float((images.square().sum() - (images @ top).square().sum()) / (examples - 1))
    assert abs(found.noise - exact) < 4 * found.error
    assert found.error < 0.15 * exact
    tops = [float(eigsh(Hessian(objective, batch), 1, "LA").values[0]) for batch in batches]
    assert sum(tops) / len(tops) == pytest.approx(found.largest(size), rel=0.06)


def test_learning_rates_for_another_batch_size():
    assert lr_for_batch(0.1, 32, 16) == pytest.approx(0.05)
    assert lr_for_batch(0.1, 32, 8, rule="adam") == pytest.approx(0.05)
    assert effective_size(10, 10) == math.inf


def test_heavy_ball_converges_at_its_rate_on_the_parabola_it_was_made_for():
    values = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    lr, momentum = heavy_ball(values.tolist())
    x, velocity = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(200):
        velocity = momentum * velocity - lr * values * x
        x = x + velocity
    rate = math.sqrt(momentum)
    assert float(x.norm()) < 1000 * rate**200
    assert rate == pytest.approx(9 / 11)  # (10 - 1) / (10 + 1); gradient descent's best is 99 / 101


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: effective_size(11, 10), "size=11"),
        (lambda: lr_for_batch(0.1, 0, 4), "size=0"),
        (lambda: lr_for_batch(0.1, 4, 4, rule="muon"), "rule='muon'"),
        (lambda: heavy_ball([-1.0]), "values"),
        (lambda: batch_spectrum(noisy_parabola(2)[0], [{"index": torch.arange(2)}]), "batches"),
        (
            lambda: batch_spectrum(noisy_parabola(3)[0], [{"index": torch.arange(2)}, {"index": torch.arange(1)}]),
            "batches",
        ),
        (
            lambda: batch_spectrum(
                noisy_parabola(4)[0], [{"index": part} for part in torch.arange(4).split(2)], probes=1
            ),
            "probes=1",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, names):
    with pytest.raises(ArgumentError, match=names):
        call()
