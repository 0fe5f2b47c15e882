"""Real processes: interrupted from the terminal, killed without warning, and resumed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import sys, time, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from covector import Objective, ZerothOrder, train, trees
from covector.training import Callback

class Tell(Callback):
    def on_step(self, run, record):
        print("step", record["step"], flush=True)
        time.sleep(float(sys.argv[3]))

torch.manual_seed(0)
objective = Objective(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3)), nn.functional.cross_entropy)
data = TensorDataset(torch.randn(40, 4), torch.randint(3, (40,)))
batches = DataLoader(data, batch_size=8, shuffle=True, num_workers=int(sys.argv[2]))
optimizer = torch.optim.AdamW(objective.params.values(), lr=1e-2)
out = None if sys.argv[1] == "none" else sys.argv[1]
history = train(objective, batches, optimizer=optimizer, estimator=ZerothOrder(), steps=24, callbacks=[Tell()],
                out=out, checkpoint_every=None if out is None else 1)
print(history.stopped, history.steps, trees.digest(objective.params), flush=True)
"""


def start(out, workers=0, pause=0.0):
    command = [sys.executable, "-c", PROGRAM, str(out), str(workers), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output.splitlines()[-1].split()


def wait_for(process, step):
    for line in process.stdout:
        if line.split() == ["step", str(step)]:
            return
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def uninterrupted():
    return finish(start("none"))


@pytest.mark.parametrize(("workers", "moments"), [(0, [7]), (2, [7, 15])])
def test_ctrl_c_on_the_terminal_saves_and_the_run_goes_on(tmp_path, uninterrupted, workers, moments):
    for step in moments:  # the second time the pass is a resumed one
        process = start(tmp_path, workers, pause=0.2)
        wait_for(process, step)
        os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group, loader workers too
        stopped, steps, _ = finish(process)
        assert stopped == "interrupted"
        assert int(steps) in (step, step + 1)
    assert finish(start(tmp_path, workers)) == uninterrupted


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tmp_path, uninterrupted):
    moments = random.Random(0)
    for step in (3, 14):
        process = start(tmp_path, pause=0.02)
        wait_for(process, step)
        time.sleep(moments.uniform(0.0, 0.08))  # while it steps, writes, syncs or renames
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert finish(start(tmp_path)) == uninterrupted
    assert not list((tmp_path / "checkpoints").glob(".*"))
