"""Watch measures what it says, within its budget, and changes nothing."""

import itertools

import pytest
import torch
from torch import nn

from covector import train
from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.landscape import Watch
from covector.linalg import eigsh
from covector.objective import Objective
from covector.trees import digest


def task(dropout=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3))
    x, y = torch.randn(64, 5), torch.randint(3, (64,))
    return Objective(model, nn.functional.cross_entropy), [(x, y)] * 40


def run(callbacks, dropout=0.0, folder=None):
    objective, batches = task(dropout)
    optimizer = torch.optim.SGD(objective.params.values(), lr=0.1, momentum=0.5)
    torch.manual_seed(1)
    history = train(
        objective,
        batches,
        optimizer=optimizer,
        steps=12,
        callbacks=callbacks(objective, batches),
        out=folder,
        progress=False,
    )
    return objective, history


def test_each_record_holds_the_latest_numbers_and_training_is_the_same_without():
    watches = []

    def watching(objective, batches):
        watches.append(Watch(objective, batches[0], ["sharpness", "overlap", "trace", "noise"], budget=1e9))
        return watches

    plain, _ = run(lambda objective, batches: [], dropout=0.3)
    watched, _ = run(watching, dropout=0.3)
    assert digest(plain.params) == digest(watched.params)
    (watch,) = watches
    assert [record["step"] for record in watch.records] == list(range(1, 13))
    last = watch.records[-1]
    watched.module.eval()
    exact = float(eigsh(Hessian(watched, task()[1][0]), 1, "LA", tol=1e-5).values[0])
    assert last["sharpness"] == pytest.approx(exact, rel=1e-3)
    assert last["sharpness_ratio"] == pytest.approx(last["sharpness"] * 0.1 / 3)
    assert 0 <= last["overlap"] <= 1


def test_modes_are_put_back():
    objective, batches = task(dropout=0.5)
    objective.module[2].eval()
    objective.module[0].train()
    before = [part.training for part in objective.module.modules()]
    Watch(objective, batches[0])()
    assert [part.training for part in objective.module.modules()] == before


def test_it_keeps_to_its_budget(monkeypatch):
    objective, batches = task()
    clock = [0.0]
    monkeypatch.setattr("covector.landscape.watch.time.perf_counter", lambda: clock[0])

    def costly(*arguments, **options):
        clock[0] += 3.0
        return Hessian(*arguments, **options)

    watch = Watch(objective, batches[0], budget=0.1, curvature=costly)
    for _ in range(600):
        watch()
        clock[0] += 1.0
    trained = clock[0] - watch.spent
    assert trained == 600.0
    # the first measurement is made before anything is known of its cost
    assert 0.09 * trained <= watch.spent <= 0.1 * trained + 3.0
    steps = [record["step"] for record in watch.records]
    assert steps[0] == 1
    assert {later - step for step, later in itertools.pairwise(steps[1:])} == {30}


def test_every_spaces_measurements():
    objective, batches = task()
    watch = Watch(objective, batches[0], budget=1e9, every=5)
    measured = [step for step in range(1, 17) if watch(step) is not None]
    assert measured == [1, 6, 11, 16]


def test_a_warm_start_takes_fewer_products():
    objective, batches = task()
    counts = []

    def counting(*arguments, **options):
        counts.append(Hessian(*arguments, **options))
        return counts[-1]

    watch = Watch(objective, batches[0], budget=1e9, curvature=counting, tol=1e-3)
    watch()
    watch()
    assert counts[1].products <= counts[0].products / 2


def test_its_state_goes_into_checkpoints():
    objective, batches = task()
    watch = Watch(objective, batches[0])
    watch()
    other = Watch(objective, batches[0])
    other.load_state_dict(watch.state_dict())
    assert other.records == watch.records


def test_a_function_without_a_module_can_be_watched():
    objective = Objective.from_function(
        lambda p, batch: (p["x"] ** 2 * torch.tensor([1.0, 3.0])).sum(), {"x": torch.ones(2, requires_grad=True)}
    )
    assert Watch(objective, None)()["sharpness"] == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"quantities": ["entropy"]}, "quantities"),
        ({"budget": 0}, "budget=0"),
        ({"every": 0}, "every=0"),
        ({"top": 0}, "top=0"),
        ({"probes": 0}, "probes=0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, name):
    objective, batches = task()
    with pytest.raises(ArgumentError, match=name):
        Watch(objective, batches[0], **options)
