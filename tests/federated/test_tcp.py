"""A swarm of real processes over TCP on loopback: one joins, one is killed, and the survivors have equal bits."""

import json
import os
import queue
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("swarm_process.py")
SOURCE = Path(__file__).parents[2] / "src"
FOUNDERS = {1: 8, 1001: 8, 2001: 8}
ITERATIONS = 80


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Process:
    """A worker process and the lines it has printed."""

    def __init__(self, **config):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
        self.port = config["port"]
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines = []
        self._queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def until(self, condition, seconds=120.0):
        """Wait for a line that fulfills ``condition``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                line = self._queue.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                raise AssertionError(f"the process ended: {self.process.stderr.read()[-2000:]}")
            self.lines.append(line)
            if condition(line):
                return line
        raise AssertionError(f"no such line within {seconds} s; the last: {self.lines[-1:]}")

    def start(self, addresses):
        self.until(lambda line: line.get("ready"))
        self.process.stdin.write(json.dumps(addresses) + "\n")
        self.process.stdin.flush()

    def checkpoints(self):
        return {line["iteration"]: line["digest"] for line in self.lines if "iteration" in line}

    def finish(self, seconds=120.0):
        return self.until(lambda line: line.get("done"), seconds)


@pytest.fixture
def spawn():
    started = []

    def start(**config):
        started.append(Process(**config))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait(10)


def single_process_accuracy(samples):
    """The same run by one worker that holds all samples of an iteration: the mean over three run keys."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("swarm_process", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    from covector.federated.swarm import Peer
    from covector.federated.swarm_worker import Worker

    train, test = script.load()
    found = []
    for key in (1, 2, 3):
        objective, header = script.build(key=key)
        worker = Worker(Peer(header, 1, samples, {1: samples}), objective)
        for iteration in range(ITERATIONS):
            batches = [script.batch(train, 1, iteration, sample) for sample in range(samples)]
            worker.step(batches, now=float(iteration))
        found.append(script.accuracy(objective, test))
    return statistics.fmean(found)


@pytest.mark.processes
@pytest.mark.slow
def test_survivors_have_equal_bits_when_one_joins_and_one_is_killed(spawn):
    ports = free_ports(4)
    addresses = [("127.0.0.1", port) for port in ports]
    common = {"samples": 8, "iterations": ITERATIONS, "pace": 0.05}
    founders = [
        spawn(origin=origin, port=port, founders=FOUNDERS, **common)
        for origin, port in zip(FOUNDERS, ports, strict=False)
    ]
    newcomer = spawn(origin=3001, port=ports[3], **common)
    newcomer.until(lambda line: line.get("ready"))
    for worker in founders:
        worker.start(addresses[:3])

    first, second, victim = founders
    first.until(lambda line: line.get("iteration", -1) >= 10)
    newcomer.process.stdin.write(json.dumps(addresses[:1]) + "\n")
    newcomer.process.stdin.flush()
    first.until(lambda line: line.get("iteration", -1) >= 20)
    victim.process.send_signal(signal.SIGKILL)

    survivors = [first, second, newcomer]
    results = [worker.finish() for worker in survivors]
    assert len({result["digest"] for result in results}) == 1
    assert len({result["ledger"] for result in results}) == 1
    assert all(result["iterations"] == ITERATIONS and not result["diverged"] for result in results)

    checkpoints = [worker.checkpoints() for worker in survivors]
    assert set(checkpoints[0]) == set(checkpoints[1]) == set(range(ITERATIONS))
    joined = min(checkpoints[2])
    assert 10 <= joined < 30
    for iteration in range(ITERATIONS):
        assert len({digests[iteration] for digests in checkpoints if iteration in digests}) == 1
    members = {line["iteration"]: line["members"] for line in first.lines if "iteration" in line}
    assert members[0] == 3
    assert max(members.values()) == 4
    assert members[ITERATIONS - 1] == 3
    assert all(worker.process.wait(20) == 0 for worker in survivors)

    alone = single_process_accuracy(24)
    assert abs(results[0]["accuracy"] - alone) <= 0.02
    assert results[0]["accuracy"] > 0.85

    # one byte a scalar and 43 bytes around them, to each of the 2 or 3 others
    sent = results[0]["sent"]["contributions"]
    assert 2 * ITERATIONS * (8 + 43) <= sent <= 3 * ITERATIONS * (8 + 43) + 200
    print(
        json.dumps(
            {
                "accuracy": results[0]["accuracy"],
                "alone": alone,
                "sent": results[0]["sent"],
                "newcomer": results[2]["received"],
            }
        )
    )


def certificate(folder):
    """A self-signed certificate for 127.0.0.1."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {"cert": str(cert), "key": str(key)}


@pytest.mark.processes
@pytest.mark.slow
def test_two_processes_over_mutual_tls_and_one_of_them_leaves(spawn, tmp_path):
    ports = free_ports(2)
    founders = {1: 2, 1001: 2}
    common = {"samples": 2, "iterations": 12, "founders": founders, "tls": certificate(tmp_path)}
    stays = spawn(origin=1, port=ports[0], **common)
    leaves = spawn(origin=1001, port=ports[1], leave_after=5, **common)
    for worker in (stays, leaves):
        worker.start([("127.0.0.1", port) for port in ports])
    gone, stayed = leaves.finish(), stays.finish()
    assert gone["contributions"] == 6
    assert stayed["iterations"] == 12
    assert leaves.checkpoints()[5] == stays.checkpoints()[5]
    assert gone["digest"] in stays.checkpoints().values()
    assert {line["iteration"]: line["members"] for line in stays.lines if "iteration" in line}[11] == 1
