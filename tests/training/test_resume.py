"""20 steps in one go are 10 steps and 10 resumed ones, bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from covector import Backprop, LowRankDirections, Objective, SeedPool, SketchPool, Subspace, ZerothOrder, train, trees
from covector.errors import ArgumentError, CorruptionError, MismatchError
from covector.training import Callback, CarrierSGD, latest_checkpoint

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}
ESTIMATORS = {
    "backprop": lambda: Backprop(),
    "zeroth": lambda: ZerothOrder(seed=3),
    "lowrank": lambda: ZerothOrder(directions=LowRankDirections(refresh=4), seed=3),
    "kerzoo": lambda: ZerothOrder(kernel="kerzoo", queries=2),
}


def straight_and_resumed(run, out):
    """``run(steps, out)`` builds everything anew, trains and returns (history, parameters)."""
    straight, expected = run(20, None)
    run(10, out)
    torch.manual_seed(999)  # a new process stands somewhere else
    random.seed(999)
    np.random.seed(999)
    resumed, actual = run(20, out)
    assert resumed.losses == straight.losses
    assert len(resumed.losses) == len(resumed.seconds) == 20
    assert trees.digest(actual) == trees.digest(expected)
    return straight, resumed


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_resumes_exactly(make_problem, tmp_path, optimizer, estimator):
    def run(steps, out):
        objective, batches = make_problem()
        made = OPTIMIZERS[optimizer](objective.params.values())
        history = train(objective, batches, optimizer=made, estimator=ESTIMATORS[estimator](), steps=steps, out=out)
        return history, objective.params

    straight_and_resumed(run, tmp_path)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_step_in_the_carrier_resumes_exactly(make_problem, tmp_path, estimator):
    def run(steps, out):
        objective, batches = make_problem()
        return train(
            objective, batches, lr=0.05, estimator=ESTIMATORS[estimator](), steps=steps, out=out
        ), objective.params

    straight_and_resumed(run, tmp_path)


@pytest.mark.parametrize("estimator", ["backprop", "zeroth", "seeds"])
def test_adam_on_a_subspace_resumes_exactly_from_its_coordinates(make_problem, tmp_path, estimator):
    pool = SeedPool(1, 16) if estimator == "seeds" else SketchPool(1, 16)

    def run(steps, out):
        objective, batches = make_problem()
        subspace = Subspace(objective.params, pool)
        made = torch.optim.Adam([subspace.x], lr=1e-2)
        source = Backprop(pool) if estimator == "backprop" else ZerothOrder(directions=pool, queries=2)
        history = train(objective, batches, optimizer=made, subspace=subspace, estimator=source, steps=steps, out=out)
        return history, objective.params

    straight_and_resumed(run, tmp_path)
    saved = latest_checkpoint(tmp_path) / "tensors.safetensors"
    from safetensors.torch import load_file

    assert sorted(name for name in load_file(saved) if name.startswith("parameters")) == ["parameters/x"]


@pytest.mark.parametrize("estimator", ["backprop", "zeroth"])
def test_dropout_batch_norm_and_the_global_generator_resume_exactly(make_problem, tmp_path, estimator):
    buffers = {}

    def run(steps, out):
        objective, batches = make_problem(dropout=0.5, norm=True, generator=False)
        made = torch.optim.SGD(objective.params.values(), lr=0.05)
        history = train(objective, batches, optimizer=made, estimator=ESTIMATORS[estimator](), steps=steps, out=out)
        buffers[steps, out is None] = trees.digest(dict(objective.module.named_buffers()))
        return history, objective.params

    straight_and_resumed(run, tmp_path)
    assert buffers[20, True] == buffers[20, False]


class Jittered(torch.utils.data.Dataset):
    """Augmentation by all three global generators."""

    def __len__(self):
        return 24

    def __getitem__(self, i):
        noise = torch.randn(4) * random.random() * float(np.random.rand())
        return torch.full((4,), float(i % 5)) + noise, i % 3


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_data_resumes_exactly(tmp_path, workers):
    def run(steps, out):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        objective = Objective(nn.Linear(4, 3), F.cross_entropy)
        batches = torch.utils.data.DataLoader(Jittered(), batch_size=3, shuffle=True, num_workers=workers)
        return train(objective, batches, lr=0.1, steps=steps, out=out), objective.params

    straight_and_resumed(run, tmp_path)


class StatefulBatches:
    """Batches that keep their own position, and count how many are made."""

    def __init__(self):
        self.generator, self.left, self.made = torch.Generator().manual_seed(1), 0, 0

    def __iter__(self):
        if not self.left:
            self.left = 6
        while self.left:
            self.left -= 1
            self.made += 1
            yield torch.randn(3, 2, generator=self.generator), torch.zeros(3, 1)

    def state_dict(self):
        return {"left": self.left, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.left = state["left"]
        self.generator.set_state(state["generator"])


def test_a_stateful_loader_resumes_without_reading_again(tmp_path):
    made = []

    def run(steps, out):
        torch.manual_seed(0)
        batches, objective = StatefulBatches(), Objective(nn.Linear(2, 1), F.mse_loss)
        history = train(objective, batches, lr=0.1, steps=steps, out=out)
        made.append(batches.made)
        return history, objective.params

    straight_and_resumed(run, tmp_path)
    assert made == [20, 10, 10]


def test_an_iterator_resumes_by_letting_batches_go_by(tmp_path):
    def run(steps, out):
        torch.manual_seed(0)
        objective = Objective(nn.Linear(2, 1), F.mse_loss)
        batches = ((torch.full((2, 2), i / 10), torch.ones(2, 1)) for i in range(30))
        return train(objective, batches, lr=0.1, steps=steps, out=out), objective.params

    straight_and_resumed(run, tmp_path)


SCHEDULERS = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "milestones": lambda o: lr_scheduler.MultiStepLR(o, [3, 12], gamma=0.5),
    "warmup": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], [5]
    ),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("carried", [True, False])
def test_schedules_resume_exactly(make_problem, tmp_path, name, carried):
    def run(steps, out):
        objective, batches = make_problem()
        kind = {"lr": 0.1} if carried else {"optimizer": torch.optim.AdamW(objective.params.values(), lr=0.1)}
        return train(objective, batches, scheduler=SCHEDULERS[name], steps=steps, out=out, **kind), objective.params

    straight, resumed = straight_and_resumed(run, tmp_path)
    assert resumed.metrics == straight.metrics
    assert len(set(straight.metrics["lr"])) >= 3


def test_accumulation_clipping_and_evaluations_resume_exactly(make_problem, tmp_path):
    def run(steps, out):
        objective, batches = make_problem(dropout=0.3)
        made = CarrierSGD(objective.params, lr=0.1, weight_decay=0.1)
        options = {"accumulate": 3, "clip_norm": 0.2, "evaluate": lambda f: torch.rand(1).item(), "evaluate_every": 4}
        return train(objective, batches, optimizer=made, steps=steps, out=out, **options), objective.params

    straight, resumed = straight_and_resumed(run, tmp_path)
    assert resumed.metrics["norm"] == straight.metrics["norm"]
    assert [e["step"] for e in resumed.evaluations] == [4, 8, 10, 12, 16, 20]


def test_a_callback_with_state_goes_on(make_problem, tmp_path):
    class Best(Callback):
        best, seen = float("inf"), 0

        def on_step(self, run, record):
            self.best, self.seen = min(self.best, record["loss"]), self.seen + 1

        def state_dict(self):
            return {"best": self.best, "seen": self.seen}

        def load_state_dict(self, state):
            self.best, self.seen = state["best"], state["seen"]

    objective, batches = make_problem()
    train(objective, batches, lr=0.1, steps=10, out=tmp_path, callbacks=[Best()])
    second = Best()
    history = train(objective, batches, lr=0.1, steps=20, out=tmp_path, callbacks=[second])
    assert (second.best, second.seen) == (min(history.losses), 20)


def test_a_finished_run_is_not_run_again(make_problem, tmp_path):
    objective, batches = make_problem()
    first = train(objective, batches, lr=0.1, steps=5, out=tmp_path)
    moved = trees.digest(objective.params)
    again = train(objective, batches, lr=0.1, steps=5, out=tmp_path)
    assert again.losses == first.losses
    assert trees.digest(objective.params) == moved


def test_one_pass_is_resumed_in_the_middle(make_problem, tmp_path):
    class StopAt(Callback):
        def on_step(self, run, record):
            run.stop = record["step"] == 3

    objective, batches = make_problem()
    whole = train(objective, batches, lr=0.1)
    objective, batches = make_problem()
    part = train(objective, batches, lr=0.1, out=tmp_path, callbacks=[StopAt()])
    objective, batches = make_problem()
    rest = train(objective, batches, lr=0.1, out=tmp_path)
    assert (part.steps, part.stopped) == (3, "callback")
    assert rest.losses == whole.losses
    assert (rest.steps, rest.stopped) == (7, "finished")


def test_start_over_and_require_a_checkpoint(make_problem, tmp_path):
    objective, batches = make_problem()
    with pytest.raises(ArgumentError, match="a checkpoint in"):
        train(objective, batches, lr=0.1, steps=2, out=tmp_path, resume=True)
    train(objective, batches, lr=0.1, steps=4, out=tmp_path)
    assert train(objective, batches, lr=0.1, steps=2, out=tmp_path, resume=False).steps == 2
    assert latest_checkpoint(tmp_path).name == "step-00000002"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def saved_run(make_problem, tmp_path):
    objective, batches = make_problem()
    train(objective, batches, optimizer=torch.optim.SGD(objective.params.values(), lr=0.1), steps=4, out=tmp_path)


WRONG = {
    "estimator": lambda o, b: {"optimizer": torch.optim.SGD(o.params.values(), lr=0.1), "estimator": ZerothOrder()},
    "update": lambda o, b: {"optimizer": torch.optim.Adam(o.params.values(), lr=0.1)},
    "scheduler": lambda o, b: {
        "optimizer": torch.optim.SGD(o.params.values(), lr=0.1),
        "scheduler": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    },
    "groups": lambda o, b: {"optimizer": torch.optim.SGD([{"params": [p]} for p in o.params.values()], lr=0.1)},
}


@pytest.mark.parametrize("name", WRONG)
def test_another_setup_is_refused_and_nothing_changes(make_problem, tmp_path, name):
    saved_run(make_problem, tmp_path)
    objective, batches = make_problem()
    before = trees.digest(objective.params)
    with pytest.raises(MismatchError, match=name):
        train(objective, batches, steps=8, out=tmp_path, **WRONG[name](objective, batches))
    assert trees.digest(objective.params) == before


def test_another_model_dtype_or_length_is_refused(make_problem, tmp_path):
    saved_run(make_problem, tmp_path)
    objective, batches = make_problem()
    other = Objective(nn.Linear(4, 3), F.cross_entropy)
    with pytest.raises(MismatchError, match="different tensors"):
        train(other, batches, optimizer=torch.optim.SGD(other.params.values(), lr=0.1), steps=8, out=tmp_path)
    double, _ = make_problem()
    double.module.double()
    with pytest.raises(MismatchError, match=r"float32 in the checkpoint but torch\.float64"):
        train(double, batches, optimizer=torch.optim.SGD(double.params.values(), lr=0.1), steps=8, out=tmp_path)
    with pytest.raises(ArgumentError, match="at least the 4 steps"):
        train(objective, batches, optimizer=torch.optim.SGD(objective.params.values(), lr=0.1), steps=3, out=tmp_path)


def test_another_base_or_pool_of_a_subspace_is_refused(make_problem, tmp_path):
    def attempt(pool, shift):
        objective, batches = make_problem()
        with torch.no_grad():
            objective.params["0.bias"].add_(shift)
        subspace = Subspace(objective.params, pool)
        return train(objective, batches, lr=0.1, subspace=subspace, steps=4, out=tmp_path)

    attempt(SketchPool(1, 8), 0.0)
    with pytest.raises(MismatchError, match="base"):
        attempt(SketchPool(1, 8), 1e-3)
    with pytest.raises(MismatchError, match="pool"):
        attempt(SketchPool(2, 8), 0.0)
    assert attempt(SketchPool(1, 8), 0.0).steps == 4


def test_fewer_batches_than_before_are_refused(make_problem, tmp_path):
    objective, batches = make_problem()
    given = list(batches)
    train(objective, given, lr=0.1, steps=5, out=tmp_path)
    objective, batches = make_problem()
    before, random_before = trees.digest(objective.params), torch.get_rng_state()
    with pytest.raises(ArgumentError, match="5 batches of the interrupted pass, got 2"):
        train(objective, given[:2], lr=0.1, steps=8, out=tmp_path)
    with pytest.raises(MismatchError, match="1 generators of its own but 0"):
        train(objective, batches, lr=0.1, steps=8, out=tmp_path)
    assert trees.digest(objective.params) == before
    assert torch.equal(torch.get_rng_state(), random_before)


def test_a_damaged_checkpoint_is_refused_by_name(make_problem, tmp_path):
    saved_run(make_problem, tmp_path)
    path = latest_checkpoint(tmp_path) / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    objective, batches = make_problem()
    with pytest.raises(CorruptionError, match=r"step-00000004.*checksum"):
        train(objective, batches, optimizer=torch.optim.SGD(objective.params.values(), lr=0.1), steps=8, out=tmp_path)
