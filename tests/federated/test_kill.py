"""kill -9 of a real server process at random moments, restart: the run ends on the uninterrupted bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("digits_server.py")
ROUNDS = 8


def start(journal, method):
    environment = {**os.environ, "COVECTOR_KERNELS": "reference", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(SCRIPT), str(journal), method, str(ROUNDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def last_line(process):
    output, _ = process.communicate(timeout=300)
    return output.splitlines()[-1]


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("method", ["kseed", "kseed-pro", "sketch"])
def test_killed_at_random_moments_the_run_ends_on_the_uninterrupted_bits(tmp_path, method):
    expected = last_line(start(tmp_path / "whole", method))
    assert expected.startswith("digest")
    source, seen = random.Random(method), []
    for _ in range(3):
        process = start(tmp_path / "killed", method)
        line = process.stdout.readline()
        seen.append(line)
        if line.startswith("round"):
            time.sleep(source.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 0)
    assert any(line.startswith("round") for line in seen)
    assert last_line(start(tmp_path / "killed", method)) == expected
