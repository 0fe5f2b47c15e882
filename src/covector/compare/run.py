"""The whole comparison: tune each optimizer with the same budget, run the best rate with several seeds, rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covector.compare.journal import Journal
from covector.compare.optimizers import default_lr
from covector.compare.ranking import Row, rank
from covector.compare.report import write_report
from covector.compare.settings import Settings
from covector.compare.trial import Result, Trial
from covector.compare.tuning import make_tuner
from covector.compare.workers import Here, Pool, Processes
from covector.training.interrupt import deferred_interrupt

__all__ = ["Comparison", "Event", "Listener", "compare"]


@dataclass(frozen=True)
class Event:
    """A trial is done.

    Args:
        trial: which.
        result: what came of it.
        known: it was done by an earlier run.
    """

    trial: Trial
    result: Result
    known: bool


Listener = Callable[[Event], None]
Search = Generator[list[Trial], list[Result], None]


@dataclass
class Comparison:
    """What a comparison left.

    Args:
        settings: what was asked for.
        out: the folder: ``trials.jsonl``, ``results.json``, ``report.html``.
        rows: the ranking, best first.
        interrupted: Ctrl-C ended it early; the rows say what is missing.
        ran: trials that this run ran, without those an earlier one had done.
    """

    settings: Settings
    out: Path
    rows: list[Row]
    interrupted: bool = False
    ran: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-ready."""
        return {
            "settings": self.settings.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "interrupted": self.interrupted,
        }


@dataclass
class _State:
    """A search that is under way: the trials it waits for, and what it has found."""

    search: Search
    asked: list[Trial] = field(default_factory=list)
    got: dict[str, Result] = field(default_factory=dict)
    found: list[tuple[Trial, Result]] = field(default_factory=list)


def compare(
    settings: Settings, out: str | Path, jobs: int = 1, resume: bool = False, listeners: Iterable[Listener] = ()
) -> Comparison:
    """Compare optimizers on a task and write the results to a folder.

    Each optimizer gets the same number of trials to find its learning rate (seed 0), and then runs at the best one
    with seeds 1, 2, ...; which trials there are does not depend on ``jobs`` or on how often the run was interrupted.

    Args:
        settings: task, optimizers and budgets.
        out: the folder: ``trials.jsonl`` (one JSON object a trial), ``results.json``, ``report.html``.
        jobs: processes; 1 runs in this process.
        resume: take over the finished trials that are in ``out``.
        listeners: called with each :class:`Event`.

    Returns:
        The ranking. Ctrl-C ends the run after what is done; a second one raises.

    Raises:
        ArgumentError: ``out`` has trials and ``resume`` is false.

    >>> import tempfile
    >>> settings = Settings("regression", ("adamw", "torch.SGD"), steps=30, seeds=2, budget=3)
    >>> [row.optimizer for row in compare(settings, tempfile.mkdtemp()).rows]
    ['torch.SGD', 'adamw']
    """
    folder = Path(out)
    journal = Journal(folder, resume)
    edges: dict[str, bool] = {}
    states = {name: _State(_search(name, settings, edges)) for name in settings.optimizers}
    pool: Pool = Processes(jobs) if jobs > 1 else Here()
    comparison = Comparison(settings, folder, [])
    try:
        with deferred_interrupt() as asked:
            comparison.ran = _drive(states, pool, journal, list(listeners), asked.is_set)
            comparison.interrupted = asked.is_set()
    finally:
        pool.close()
    comparison.rows = rank({name: state.found for name, state in states.items()}, settings.seeds, edges)
    text = json.dumps(comparison.to_dict(), indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    write_report(comparison, folder / "report.html")
    return comparison


def _search(name: str, settings: Settings, edges: dict[str, bool]) -> Search:
    """Trials of one optimizer, a batch at a time."""

    def trial(lr: float, seed: int) -> Trial:
        return Trial(settings.task, name, lr, seed, settings.steps, settings.schedule)

    tuner = make_tuner(settings.tuner, default_lr(name), settings.budget)
    values: dict[float, float] = {}
    while rates := tuner.ask():
        results = yield [trial(lr, 0) for lr in rates]
        for lr, result in zip(rates, results, strict=True):
            tuner.tell(lr, result.loss)
            if result.value is not None:
                values[lr] = result.value
    edges[name] = tuner.at_edge
    if values:
        best = min(values, key=values.__getitem__)
        yield [trial(best, seed) for seed in range(1, settings.seeds + 1)]


def _drive(
    states: dict[str, _State], pool: Pool, journal: Journal, listeners: list[Listener], stopped: Callable[[], bool]
) -> int:
    """Run the searches side by side until they end; returns how many trials ran."""
    waiting: set[str] = set()
    ran = 0

    def settle(state: _State, trial: Trial, result: Result, known: bool) -> None:
        state.got[trial.key] = result
        state.found.append((trial, result))
        for listener in listeners:
            listener(Event(trial, result, known))

    def advance(state: _State) -> None:
        while len(state.got) == len(state.asked):
            results = [state.got[trial.key] for trial in state.asked]
            try:
                state.asked = state.search.send(results) if state.asked else next(state.search)
            except StopIteration:
                return
            state.got = {}
            for trial in state.asked:
                known = journal.find(trial)
                if known is not None:
                    settle(state, trial, known, True)
                else:
                    waiting.add(trial.key)
                    pool.submit(trial)

    for state in states.values():
        advance(state)
    while waiting and not stopped():
        done = pool.next(stopped)
        if done is None:
            break
        trial, result = done
        waiting.discard(trial.key)
        journal.add(trial, result)
        ran += 1
        settle(states[trial.optimizer], trial, result, False)
        advance(states[trial.optimizer])
    return ran
