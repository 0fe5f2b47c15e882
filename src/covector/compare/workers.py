"""Where trials run: in this process one after the other, or in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import covector
from covector.compare.trial import Result, Trial, run_trial

__all__ = ["Here", "Pool", "Processes"]

Stopped = Callable[[], bool]


class Pool(Protocol):
    """Runs trials that are submitted and hands their results over as they come."""

    def submit(self, trial: Trial) -> None:
        """Run a trial, now or later."""

    def next(self, stopped: Stopped) -> tuple[Trial, Result] | None:
        """Wait for a trial that is done; None when ``stopped`` says so meanwhile."""

    def close(self) -> None:
        """Give up what runs."""


class Here:
    """Trials in this process, one after the other, on one thread of torch as in the processes."""

    def __init__(self) -> None:
        self.waiting: deque[Trial] = deque()

    def submit(self, trial: Trial) -> None:
        """Run a trial when :meth:`next` is called."""
        self.waiting.append(trial)

    def next(self, stopped: Stopped) -> tuple[Trial, Result] | None:
        """Run the trial that waits longest."""
        import torch

        trial, threads = self.waiting.popleft(), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            result = run_trial(trial, stopped)
        finally:
            torch.set_num_threads(threads)
        return None if result is None else (trial, result)

    def close(self) -> None:
        """Nothing runs between two calls."""


class Processes:
    """Trials in processes of their own, each on one thread.

    Args:
        count: how many run at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting: deque[Trial] = deque()
        self.running: dict[subprocess.Popen[str], Trial] = {}
        self.idle: list[subprocess.Popen[str]] = []
        self.selector = selectors.DefaultSelector()

    def submit(self, trial: Trial) -> None:
        """Run a trial as soon as a process is free."""
        self.waiting.append(trial)
        self._fill()

    def next(self, stopped: Stopped) -> tuple[Trial, Result] | None:
        """Wait for a trial that is done; a process that died is a result, and a new one takes its place."""
        while not stopped():
            for key, _ in self.selector.select(timeout=0.1):
                process: subprocess.Popen[str] = key.data
                trial = self.running.pop(process)
                line = process.stdout.readline() if process.stdout else ""
                if line:
                    result = Result(**json.loads(line))
                    self.idle.append(process)
                else:
                    self._forget(process)
                    result = Result(error=f"the process that ran it ended with code {process.wait()}")
                self._fill()
                return trial, result
        return None

    def close(self) -> None:
        """End the processes; what they run is given up."""
        for process in [*self.running, *self.idle]:
            process.kill()
            self._forget(process)
            process.wait()
        self.running, self.idle = {}, []
        self.selector.close()

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.count:
            process = self.idle.pop() if self.idle else self._start()
            trial = self.waiting.popleft()
            self.running[process] = trial
            assert process.stdin is not None
            process.stdin.write(json.dumps(dataclasses.asdict(trial)) + "\n")
            process.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        root = str(Path(covector.__file__).parents[1])
        places = [root, os.getcwd(), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))}
        process = subprocess.Popen(
            [sys.executable, "-m", "covector.compare.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, encoding="utf-8", env=environment,
            start_new_session=True,  # a Ctrl-C is the parent's to handle
        )  # fmt: skip
        assert process.stdout is not None
        self.selector.register(process.stdout, selectors.EVENT_READ, process)
        return process

    def _forget(self, process: subprocess.Popen[str]) -> None:
        for stream in (process.stdout, process.stdin):
            if stream is process.stdout and stream is not None:
                self.selector.unregister(stream)
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # what was written to a process that died is lost with it
                    continue
