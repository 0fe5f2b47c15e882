"""A swarm of real processes over TCP on loopback: three founders, one that joins later, one that is killed.

``python -m covector.evidence.experiments.one_byte_processes FILE CONFIG`` is one of them; it writes a JSON line for
its port and for every closed iteration.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from covector import trees
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.one_byte_swarm import batch_of, header_of, task
from covector.evidence.findings import Finding

__all__ = ["process_findings"]

FOUNDERS = {1: 8, 1001: 8, 2001: 8}
NEWCOMER, SAMPLES, ITERATIONS, JOINS, KILLED = 3001, 8, 60, 10, 20
PACE = 0.15  # seconds an iteration takes at least: there must be time to join and to be killed


def process_findings(deadline: float = 300.0) -> list[Finding]:
    """Run the processes and compare what they say their parameters are."""
    with tempfile.TemporaryDirectory() as folder:
        band = _Band(Path(folder), time.monotonic() + deadline)
        try:
            lines = band.play()
        finally:
            band.end()
    closed: dict[int, set[str]] = {}
    for own in lines.values():
        for line in own:
            if "iteration" in line:
                closed.setdefault(line["iteration"], set()).add(line["digest"])
    survivors = {origin: own[-1] for origin, own in lines.items() if own and own[-1].get("done")}
    split = sum(len(digests) > 1 for digests in closed.values())
    final = {line["digest"] for line in survivors.values()}
    rates = [
        line["sent"].get("contributions", 0) / max(1, line["contributions"]) / (len(survivors) - 1)
        for origin, line in survivors.items()
        if origin in FOUNDERS
    ]
    setting = (
        f"{len(FOUNDERS)} processes over TCP on loopback, {SAMPLES} samples each, one joins at iteration {JOINS}, one "
        f"is killed at {KILLED}, {ITERATIONS} iterations"
    )
    return [
        Finding(
            "Real processes that come and go hold the same model", "proof of concept", split, len(closed),
            "iterations in which SHA-256 differed",
            split == 0 and len(final) == 1 and len(survivors) == 3 and NEWCOMER in survivors,
            f"{setting}; checked after every iteration (baseline: their number), {len(survivors)} survivors end with "
            f"{len(final)} digest",
        ),
        Finding(
            "A round of a process is tens of bytes, whatever the model", "1 byte a gradient", max(rates), 4 * 650,
            "bytes", max(rates) < 2 * (46 + SAMPLES),
            f"{setting}; contributions a surviving founder sent to each other peer and iteration, reports left out; "
            "baseline: the gradient of 650 parameters in fp32",
        ),
    ]  # fmt: skip


class _Band:
    """The processes and the files they write."""

    def __init__(self, folder: Path, deadline: float) -> None:
        self.folder = folder
        self.deadline = deadline
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def play(self) -> dict[int, list[dict[str, Any]]]:
        first, *others = FOUNDERS
        self._start(first, [], founder=True)
        port = self._await(first, "port")["port"]
        for origin in others:
            self._start(origin, [port], founder=True)
        self._await(first, "iteration", JOINS)
        self._start(NEWCOMER, [port], founder=False)
        self._await(first, "iteration", KILLED)
        self.processes[others[0]].kill()
        for origin in (first, others[1], NEWCOMER):
            self._await(origin, "done")
        return {origin: self._lines(origin) for origin in self.processes}

    def _start(self, origin: int, ports: list[int], founder: bool) -> None:
        config = {"origin": origin, "ports": ports, "founder": founder}
        log = (self.folder / f"{origin}.log").open("wb")
        with log:
            self.processes[origin] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "covector.evidence.experiments.one_byte_processes",
                    str(self._file(origin)),
                    json.dumps(config),
                ],
                stdout=log,
                stderr=log,
            )

    def _await(self, origin: int, key: str, least: int = 0) -> dict[str, Any]:
        while time.monotonic() < self.deadline:
            for line in self._lines(origin):
                if key in line and int(line[key]) >= least:
                    return line
            if self.processes[origin].poll() is not None:
                break
            time.sleep(0.1)
        log = (self.folder / f"{origin}.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"process {origin} did not say {key!r} >= {least} in time: {log}")

    def _lines(self, origin: int) -> list[dict[str, Any]]:
        path = self._file(origin)
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _file(self, origin: int) -> Path:
        return self.folder / f"{origin}.jsonl"

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(30)


async def _member(path: Path, config: dict[str, Any]) -> None:
    from covector.federated.swarm import Peer
    from covector.federated.swarm_membership import Timing
    from covector.federated.swarm_worker import Worker
    from covector.federated.tcp_run import run_peer

    digits, objective, origin = Digits.load(), task(0), config["origin"]
    founders = FOUNDERS if config["founder"] else None
    peer = Peer(header_of(0), origin, SAMPLES, founders, ITERATIONS, Timing(report=0.5, silence=20.0))
    with path.open("a", buffering=1) as file:

        def say(**fields: object) -> None:
            file.write(json.dumps(fields) + "\n")

        def batches(iteration: int) -> list[Any]:
            time.sleep(PACE)
            return [batch_of(digits, 0, iteration, origin + sample) for sample in range(SAMPLES)]

        report = await run_peer(
            Worker(peer, objective),
            batches,
            peers=[("127.0.0.1", port) for port in config["ports"]],
            on_start=lambda mesh: say(port=mesh.port),
            on_iteration=lambda iteration: say(iteration=iteration, digest=trees.digest(objective.params)),
        )
        say(done=True, digest=trees.digest(objective.params), sent=report.sent, contributions=len(report.losses))


if __name__ == "__main__":
    asyncio.run(_member(Path(sys.argv[1]), json.loads(sys.argv[2])))
