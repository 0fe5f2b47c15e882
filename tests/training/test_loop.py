"""The loop against loops written out, and what it does when it is stopped or misused."""

import json
import math
import signal
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import Backprop, Objective, Sketch, SketchPool, Subspace, ZerothOrder, train, trees
from covector.errors import ArgumentError, CompositionError, NonFiniteError, UnsupportedError
from covector.gradients import project
from covector.training import Callback, CarrierSGD, latest_checkpoint


class Recorder(Callback):
    def __init__(self, at=None, action=None):
        self.events, self.at, self.action = [], at, action

    def on_start(self, run):
        self.events.append(("start", run.step))

    def on_step(self, run, record):
        self.events.append(("step", record["step"]))
        if record["step"] == self.at:
            self.action(run)

    def on_evaluate(self, run, record):
        self.events.append(("evaluate", record["step"]))

    def on_end(self, run):
        self.events.append(("end", run.history.stopped))


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_backprop_with_an_optimizer_is_the_plain_pytorch_loop(make_problem, clip, accumulate):
    plain, batches = make_problem(dropout=0.2)
    optimizer = torch.optim.AdamW(plain.params.values(), lr=1e-2)
    torch.manual_seed(1)
    stream = iter([batch for _ in range(4) for batch in batches])
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        total = 0.0
        for _ in range(accumulate):
            inputs, targets = next(stream)
            loss = F.cross_entropy(plain.module(inputs), targets)
            (loss / accumulate).backward()
            total += loss.item() / accumulate
        if clip is not None:
            nn.utils.clip_grad_norm_(plain.params.values(), clip)
        optimizer.step()
        losses.append(total)

    objective, batches = make_problem(dropout=0.2)
    again = torch.optim.AdamW(objective.params.values(), lr=1e-2)
    torch.manual_seed(1)
    history = train(objective, batches, optimizer=again, steps=12, clip_norm=clip, accumulate=accumulate)
    if accumulate == 1:
        assert history.losses == losses
        assert trees.digest(objective.params) == trees.digest(plain.params)
    assert history.losses == pytest.approx(losses, abs=1e-6)
    assert all(torch.allclose(objective.params[name], p, atol=1e-6) for name, p in plain.params.items())


@pytest.mark.parametrize("estimator", [Backprop(), ZerothOrder(seed=2), Backprop(SketchPool(1, 16))])
def test_a_step_in_the_carrier_is_plain_sgd(make_problem, estimator):
    carried, batches = make_problem()
    train(carried, list(batches), lr=0.05, estimator=estimator, steps=5)
    estimator.load_state_dict({**estimator.state_dict(), "step": 0})
    dense, batches = make_problem()
    sgd = torch.optim.SGD(dense.params.values(), lr=0.05)
    train(dense, list(batches), optimizer=sgd, estimator=estimator, steps=5)
    assert all(torch.allclose(carried.params[name], p, atol=1e-6) for name, p in dense.params.items())


def test_a_step_in_the_carrier_writes_no_grad(make_problem):
    objective, batches = make_problem()
    grads = []
    look = Recorder(2, lambda run: grads.extend(p.grad for p in run.objective.params.values()))
    train(objective, batches, lr=0.05, estimator=ZerothOrder(), steps=2, callbacks=[look])
    assert grads == [None] * 4


def test_sgd_on_a_subspace_moves_by_the_projected_gradient(make_problem):
    objective, batches = make_problem()
    batch, pool = next(iter(batches)), SketchPool(1, 16)
    expected = trees.clone(objective.params)
    gradient = Backprop()(objective, batch).gradient
    Sketch(1, project(gradient.params, 1, 16)).add_to_(expected, -0.5)
    train(objective, [batch], lr=0.5, subspace=Subspace(objective.params, pool))
    assert all(torch.allclose(objective.params[name], p, atol=1e-6) for name, p in expected.items())


@pytest.mark.parametrize("source", ["carrier", "optimizer", "subspace"])
def test_clipping_bounds_the_step(make_problem, source):
    objective, batches = make_problem()
    before, pool = trees.clone(objective.params), SketchPool(1, 64)
    if source == "optimizer":
        kind = {"optimizer": torch.optim.SGD(objective.params.values(), lr=1.0), "estimator": ZerothOrder()}
    elif source == "carrier":
        kind = {"lr": 1.0, "estimator": ZerothOrder()}
    else:
        kind = {"lr": 1.0, "estimator": Backprop(pool), "subspace": Subspace(objective.params, pool)}
    history = train(objective, batches, steps=1, clip_norm=1e-2, **kind)
    moved = (
        kind["subspace"].x.norm().item()
        if source == "subspace"
        else math.dist(trees.flatten(before).tolist(), trees.flatten(objective.params).tolist())
    )
    assert moved == pytest.approx(1e-2, rel=1e-3)
    assert history.metrics["norm"][0] > 0.1


def test_weight_decay_of_the_carrier_is_decoupled():
    params = {"w": torch.tensor([2.0, -4.0])}
    objective = Objective.from_function(lambda p, batch: 0.0 * p["w"].sum(), params)
    train(objective, [None], optimizer=CarrierSGD(params, lr=0.5, weight_decay=0.5))
    assert params["w"].tolist() == [1.5, -3.0]


def test_training_reaches_the_minimum_of_a_parabola():
    objective = Objective.from_function(lambda p, batch: (p["x"] - 3).square().sum(), {"x": torch.zeros(4)})
    train(objective, [None], lr=0.02, estimator=ZerothOrder(seed=1), steps=400)
    assert torch.allclose(objective.params["x"], torch.full((4,), 3.0), atol=1e-2)


def test_callbacks_hear_of_everything_in_order(make_problem):
    objective, batches = make_problem()
    heard = Recorder()
    history = train(objective, batches, lr=0.1, steps=3, evaluate=lambda f: 1.0, evaluate_every=2, callbacks=[heard])
    assert heard.events == [
        ("start", 0), ("step", 1), ("step", 2), ("evaluate", 2), ("step", 3), ("evaluate", 3), ("end", "finished"),
    ]  # fmt: skip
    assert history.evaluations == [{"step": 2, "value": 1.0}, {"step": 3, "value": 1.0}]


def test_a_callback_stops_the_run(make_problem):
    objective, batches = make_problem()
    stop = Recorder(3, lambda run: setattr(run, "stop", True))
    history = train(objective, batches, lr=0.1, steps=9, callbacks=[stop])
    assert (history.steps, history.stopped) == (3, "callback")


def test_without_steps_a_run_is_one_pass(make_problem):
    objective, batches = make_problem()
    assert train(objective, batches, lr=0.1, accumulate=2).steps == 4
    history = train(objective, iter(list(batches)), lr=0.1, steps=100)
    assert (history.steps, history.stopped) == (7, "exhausted")


def test_evaluation_sees_eval_mode_and_changes_nothing(make_problem):
    objective, batches = make_problem(dropout=0.5)
    seen = []

    def evaluate(given):
        seen.append((given.module.training, torch.is_grad_enabled(), torch.rand(1).item()))
        return {"accuracy": 0.5}

    torch.manual_seed(3)
    looked = train(objective, batches, lr=0.1, steps=6, evaluate=evaluate, evaluate_every=1)
    other, batches = make_problem(dropout=0.5)
    torch.manual_seed(3)
    assert train(other, batches, lr=0.1, steps=6).losses == looked.losses
    assert all(not training and not grad for training, grad, _ in seen)
    assert objective.module.training


def test_ctrl_c_finishes_the_step_saves_and_returns(make_problem, tmp_path):
    expected, batches = make_problem()
    whole = train(expected, batches, lr=0.1, steps=10)
    objective, batches = make_problem()
    press = Recorder(4, lambda run: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    history = train(objective, batches, lr=0.1, steps=10, out=tmp_path, callbacks=[press])
    assert (history.steps, history.stopped) == (4, "interrupted")
    assert press.events[-1] == ("end", "interrupted")
    assert signal.getsignal(signal.SIGINT) is handler
    objective, batches = make_problem()
    assert train(objective, batches, lr=0.1, steps=10, out=tmp_path).losses == whole.losses
    assert trees.digest(objective.params) == trees.digest(expected.params)


def test_a_second_ctrl_c_interrupts_at_once(make_problem):
    def press(run):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    objective, batches = make_problem()
    heard = Recorder(2, press)
    with pytest.raises(KeyboardInterrupt):
        train(objective, batches, lr=0.1, steps=10, callbacks=[heard])
    assert heard.events[-1] == ("end", "error")


def test_training_works_outside_the_main_thread(make_problem):
    objective, batches = make_problem()
    histories = []
    thread = threading.Thread(target=lambda: histories.append(train(objective, batches, lr=0.1, steps=2)))
    thread.start()
    thread.join()
    assert histories[0].steps == 2


def poisoned(batches, at):
    for i, (inputs, targets) in enumerate(batches):
        yield inputs * (math.nan if i in at else 1.0), targets


def test_a_non_finite_loss_raises_and_leaves_the_parameters(make_problem, tmp_path):
    objective, batches = make_problem()
    optimizer = torch.optim.Adam(objective.params.values(), lr=0.1)
    states = []
    note = Recorder(2, lambda run: states.append(trees.digest(run.objective.params)))
    with pytest.raises(NonFiniteError):
        train(objective, poisoned(batches, {2}), optimizer=optimizer, out=tmp_path, callbacks=[note])
    assert states == [trees.digest(objective.params)]
    assert note.events[-1] == ("end", "error")
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("estimator", [Backprop, ZerothOrder])
def test_a_skipped_step_moves_nothing_and_is_recorded(make_problem, tmp_path, estimator):
    objective, batches = make_problem()
    made = torch.optim.Adam(objective.params.values(), lr=0.1, weight_decay=0.1)
    source = estimator(nonfinite="skip")
    digests = []
    note = Recorder()
    note.on_step = lambda run, record: digests.append(trees.digest(run.objective.params))
    history = train(objective, poisoned(batches, {2}), optimizer=made, estimator=source, out=tmp_path, callbacks=[note])
    assert history.steps == 7
    assert [math.isnan(loss) for loss in history.losses] == [i == 2 for i in range(7)]
    assert digests[2] == digests[1] != digests[3]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[2]["loss"] is None
    assert source.skipped == 1


def test_skipped_batches_are_left_out_of_an_average(make_problem):
    objective, batches = make_problem()
    given = list(batches)
    train(objective, poisoned(given[:3], {1}), lr=0.1, accumulate=3, estimator=Backprop(nonfinite="skip"))
    other, _ = make_problem()
    train(other, [given[0], given[2]], lr=0.1, accumulate=2)
    assert trees.digest(objective.params) == trees.digest(other.params)


WRONG = {
    "steps": {"lr": 0.1, "steps": 0},
    "accumulate": {"lr": 0.1, "accumulate": 0},
    "evaluate_every": {"lr": 0.1, "evaluate_every": -1},
    "clip_norm": {"lr": 0.1, "clip_norm": 0.0},
    "checkpoint_every": {"lr": 0.1, "checkpoint_every": 5},
    "resume": {"lr": 0.1, "resume": "yes"},
    "lr": {},
    "callbacks": {"lr": 0.1, "callbacks": [print]},
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_argument_is_named_before_anything_happens(make_problem, argument):
    objective, batches = make_problem()
    before = trees.digest(objective.params)
    with pytest.raises(ArgumentError, match=f"^{argument}="):
        train(objective, batches, **WRONG[argument])
    assert trees.digest(objective.params) == before


def test_empty_batches_are_refused(make_problem):
    objective, _ = make_problem()
    for steps in (None, 3):
        with pytest.raises(ArgumentError, match=r"^batches=\[\]"):
            train(objective, [], lr=0.1, steps=steps)


def test_parts_that_do_not_belong_together_are_refused(make_problem):
    objective, batches = make_problem()
    other, _ = make_problem()
    sgd = torch.optim.SGD(objective.params.values(), lr=0.1)
    subspace = Subspace(objective.params, SketchPool(1, 8))
    on_x = torch.optim.SGD([subspace.x], lr=0.1)
    few = torch.optim.SGD(list(objective.params.values())[:2], lr=0.1)
    pairs = [
        ("2 only in objective", {"optimizer": few}),
        ("with different tensors|hold different tensors", {"optimizer": on_x}),
        ("optimizer and subspace", {"optimizer": sgd, "subspace": subspace}),
        ("subspace and objective", {"lr": 0.1, "subspace": Subspace(other.params, SketchPool(1, 8))}),
        ("LBFGS", {"optimizer": torch.optim.LBFGS(objective.params.values())}),
        ("another optimizer", {"optimizer": sgd, "scheduler": torch.optim.lr_scheduler.ExponentialLR(on_x, 0.9)}),
        ("ReduceLROnPlateau", {"optimizer": sgd, "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)}),
    ]
    for message, arguments in pairs:
        with pytest.raises(CompositionError, match=message):
            train(objective, batches, steps=1, **arguments)


def test_a_state_that_cannot_be_saved_is_refused_before_training(make_problem, tmp_path):
    class Odd(Backprop):
        def state_dict(self):
            return {"skipped": 0, "thing": object()}

    objective, batches = make_problem()
    before = trees.digest(objective.params)
    with pytest.raises(UnsupportedError, match="estimator/thing is a object"):
        train(objective, batches, lr=0.1, estimator=Odd(), steps=3, out=tmp_path)
    assert trees.digest(objective.params) == before
    assert list(tmp_path.iterdir()) == []
