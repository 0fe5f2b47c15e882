"""The tests of noise on the Gaussian mean model, and the controller in loops, with accumulation and resumed."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from covector import Objective, train, trees
from covector.errors import ArgumentError, CompositionError
from covector.optim import BatchController, DynamicBatchSampler, GradientMoments, MomentsBackprop
from covector.optim.batch_tests import coordinate_test, inner_product_test, norm_test, orthogonality_test
from covector.training import read_checkpoint

MEASURES = ["per_sample", "ghost", "micro"]


def gaussian(count, dim=40, sigma=2.0, seed=0):
    """``g_i = mu + sigma z_i`` with ``||mu|| = 3``."""
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, generator=draw, dtype=torch.float64)
    mean *= 3.0 / mean.norm()
    return mean, mean + sigma * torch.randn(count, dim, generator=draw, dtype=torch.float64)


def problem(size=96):
    torch.manual_seed(0)
    inputs = torch.randn(size, 6)
    targets = (inputs @ torch.randn(6, 3)).argmax(1)
    objective = Objective(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), F.cross_entropy)
    return objective, TensorDataset(inputs, targets)


def test_the_gaussian_model_asks_for_the_batch_of_theory():
    mean, x = gaussian(50_000)
    moments, squared = GradientMoments.from_examples({"x": x}), float(mean @ mean)
    assert norm_test(moments, 0.5) == pytest.approx(40 * 4.0 / (0.25 * squared), rel=0.03)
    assert inner_product_test(moments, 0.5) == pytest.approx(4.0 / (0.25 * squared), rel=0.03)
    assert orthogonality_test(moments, 1.0) == pytest.approx(39 * 4.0 / squared, rel=0.03)
    ratios = sorted(4.0 / (0.25 * mean.square()))
    assert coordinate_test(moments, 0.5, quantile=0.5) == pytest.approx(float(ratios[19]), rel=0.1)


def test_a_small_batch_asks_for_less_because_its_mean_holds_noise():
    mean, x = gaussian(8 * 2000)
    asked = torch.tensor([norm_test(GradientMoments.from_examples({"x": part}), 0.5) for part in x.split(8)])
    # E||mean||^2 = ||mu||^2 + d sigma^2 / b
    expected = 40 * 4.0 / (0.25 * (float(mean @ mean) + 40 * 4.0 / 8))
    assert float(asked.median()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("test", ["norm", "inner", "augmented"])
def test_a_rotation_of_all_parameters_changes_nothing(test):
    _, x = gaussian(64)
    rotation = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    controller = BatchController(8, test=test)
    plain, turned = (
        controller.required(GradientMoments.from_examples({"a": y[:, :15], "b": y[:, 15:]})) for y in (x, x @ rotation)
    )
    assert turned == pytest.approx(plain, rel=1e-9)


def test_the_coordinate_test_and_the_published_inner_product_depend_on_the_coordinates():
    _, x = gaussian(64)
    rotation = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    for options in ({"test": "coordinate"}, {"test": "inner", "by_tensor": True}):
        controller = BatchController(8, **options)
        plain, turned = (
            controller.required(GradientMoments.from_examples({"a": y[:, :15], "b": y[:, 15:]}))
            for y in (x, x @ rotation)
        )
        assert abs(turned / plain - 1) > 1e-3


def test_the_inner_product_of_all_parameters_holds_the_covariance_between_tensors():
    x = torch.tensor([[0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    moments = GradientMoments.from_examples({"a": x[:, :1], "b": x[:, 1:]})
    assert inner_product_test(moments, 1.0) == 2 * inner_product_test(moments, 1.0, by_tensor=True)


def test_coordinates_that_are_always_zero_ask_for_nothing():
    x = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert coordinate_test(GradientMoments.from_examples({"x": x}), 1.0) == 0.5
    assert coordinate_test(GradientMoments.from_examples({"x": 0 * x}), 1.0) == 0.0


def test_a_mean_of_zero_asks_for_the_largest_batch():
    moments = GradientMoments.from_examples({"x": torch.tensor([[1.0], [-1.0]])})
    assert norm_test(moments, 1.0) == math.inf
    assert BatchController(8, max=500).observe(moments) == 500
    assert BatchController(8).observe(moments) == 8


def test_the_batch_never_shrinks_and_never_passes_its_limit():
    controller = BatchController(8, max=100)
    sizes = []
    for seed, sigma in enumerate([0.1, 3.0, 0.1, 50.0, 0.1]):
        sizes.append(controller.observe(GradientMoments.from_examples({"x": gaussian(64, sigma=sigma, seed=seed)[1]})))
    assert sizes == sorted(sizes)
    assert sizes[0] == 8
    assert sizes[-1] == 100


def test_workers_together_are_one_process():
    _, x = gaussian(96)
    workers = GradientMoments.merge([GradientMoments.from_examples({"x": part}) for part in x.split(24)])
    whole = GradientMoments.from_examples({"x": x})
    for one in (norm_test, coordinate_test):
        assert one(workers, 0.5) == pytest.approx(one(whole, 0.5), rel=1e-9)
    with pytest.raises(CompositionError, match="inner variance"):
        inner_product_test(workers, 0.5)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("micro", [None, 7])
def test_the_gradient_is_that_of_the_whole_batch(measure, micro):
    objective, data = problem()
    batch = data.tensors
    estimate = MomentsBackprop(measure, micro, inner=True)(objective, batch)
    loss = objective(batch)
    expected = torch.autograd.grad(loss, list(objective.params.values()))
    assert estimate.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for own, g in zip(estimate.gradient.params.values(), expected, strict=True):
        torch.testing.assert_close(own, g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", ["per_sample", "ghost"])
def test_accumulated_moments_are_those_of_the_whole_batch(measure):
    objective, data = problem()
    whole, pieces = (MomentsBackprop(measure, micro, inner=True, variance=True) for micro in (None, 20))
    found = []
    for estimator in (whole, pieces):
        estimator(objective, data.tensors)
        found.append(estimator.take()[1])
    one, many = found
    assert many.trace == pytest.approx(one.trace, rel=1e-4)
    assert many.inner == pytest.approx(one.inner, rel=1e-4)
    for name, v in one.variance.items():
        torch.testing.assert_close(many.variance[name], v, rtol=1e-3, atol=1e-6)


def test_batches_of_one_step_are_taken_together():
    objective, data = problem()
    estimator = MomentsBackprop("ghost")
    for start in (0, 48):
        estimator(objective, data[start : start + 48])
    examples, moments = estimator.take()
    assert examples == moments.count == 96
    assert estimator.take() == (0, None)


def run(steps, out=None, *, measure="ghost", test="norm", workers=0, interval=1, micro=None, **options):
    objective, data = problem()
    sampler = DynamicBatchSampler(data, 2, seed=4)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    controller = BatchController(sampler, test=test, eta=0.6, max=30, estimator=measure, interval=interval, micro=micro)
    optimizer = torch.optim.Adagrad(objective.params.values(), lr=0.1)
    history = train(
        objective, loader, optimizer=optimizer, steps=steps, out=out, estimator=controller.estimator,
        callbacks=[controller], **options,
    )  # fmt: skip
    return objective, history, controller


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("test", ["norm", "inner", "augmented", "coordinate"])
def test_the_batch_grows_while_training(measure, test):
    _, history, controller = run(25, measure=measure, test=test)
    sizes = history.metrics["batch_size"]
    assert len(sizes) == 25
    assert sizes[0] == 2
    assert controller.batch_size > 2
    assert max(sizes) <= 30


def test_the_next_batch_has_the_size_that_was_asked_for():
    _, history, controller = run(1)
    asked = controller.batch_size
    _, history, _ = run(2)
    assert history.metrics["batch_size"] == [2.0, float(asked)]


def test_a_test_every_third_step():
    _, history, _ = run(9, interval=3)
    sizes = history.metrics["batch_size"]
    assert sizes[:3] == [2, 2, 2]
    assert sizes[3] == sizes[4] == sizes[5] > 2


def test_the_size_is_in_the_metrics_on_disk(tmp_path):
    run(3, tmp_path)
    assert '"batch_size": 2.0' in (tmp_path / "metrics.jsonl").read_text().splitlines()[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"test": "augmented", "measure": "per_sample", "micro": 5}, {"interval": 3}, {"accumulate": 2}],
    ids=str,
)
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    straight, history, _ = run(24, **options)
    for steps in (7, 13, 24):
        resumed, found, _ = run(steps, tmp_path, **options)
    assert found.losses == history.losses
    assert found.metrics["batch_size"] == history.metrics["batch_size"]
    assert trees.digest(resumed.params) == trees.digest(straight.params)


@pytest.mark.processes
def test_a_run_with_workers_that_fetch_ahead_resumes_bit_for_bit(tmp_path):
    straight, history, _ = run(20, workers=2)
    for steps in (6, 20):
        resumed, found, _ = run(steps, tmp_path, workers=2)
    assert found.losses == history.losses
    assert trees.digest(resumed.params) == trees.digest(straight.params)
    # two workers fetch two batches each ahead: the first test's size comes with batch 1 + 4
    assert history.metrics["batch_size"][:5] == [2] * 5
    assert history.metrics["batch_size"][5] > 2


def test_a_checkpoint_of_another_size_does_not_matter_to_what_was_drawn(tmp_path):
    run(7, tmp_path)
    (path,) = (tmp_path / "checkpoints").glob("step-*7")
    state = read_checkpoint(path)
    drawn = state["data"]["drawn"]
    assert sum(count for _, count in drawn) == state["data"]["position"]


def test_a_loop_of_ones_own():
    objective, data = problem()
    optimizer = torch.optim.Adagrad(objective.params.values(), lr=0.1)
    sampler = DynamicBatchSampler(data, 2, seed=4)
    controller = BatchController(sampler, eta=0.6, max=30, estimator="ghost")
    losses = []
    while len(losses) < 25:
        for batch in DataLoader(data, batch_sampler=sampler):
            optimizer.zero_grad()
            losses.append(controller.backward(objective, tuple(batch)))
            optimizer.step()
            controller.step()
    _, history, _ = run(25)
    assert losses[:25] == history.losses


def test_a_run_that_measures_nothing_is_refused():
    objective, data = problem()
    controller = BatchController(DynamicBatchSampler(data, 2))
    with pytest.raises(CompositionError, match=r"controller\.estimator"):
        train(objective, [data.tensors], lr=0.1, callbacks=[controller])


def test_a_skipped_step_is_not_tested():
    objective, data = problem()
    controller = BatchController(4, estimator="ghost")
    controller.estimator.nonfinite = "skip"
    x, y = data[:8]
    controller.backward(objective, (x * math.nan, y))
    assert controller.step() == 4
    assert controller.moments is None


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("test", {"test": "t"}),
        ("eta", {"eta": 0.0}),
        ("nu", {"nu": -1.0}),
        ("max", {"max": 0}),
        ("interval", {"interval": 0}),
        ("micro", {"micro": 0}),
        ("estimator", {"estimator": "hutchinson"}),
        ("quantile", {"quantile": 1.5}),
        ("sampler", {"sampler": 0}),
    ],
)
def test_a_bad_argument_is_named(argument, options):
    with pytest.raises(ArgumentError, match=argument):
        BatchController(**{"sampler": 4, **options})
