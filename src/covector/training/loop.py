"""train: the loop. Batches to an estimate, the estimate to a step, until the steps are done."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from covector.errors import ArgumentError, CompositionError
from covector.estimators import Backprop, Estimate, Estimator
from covector.gradients import Subspace
from covector.objective import Batch, Objective
from covector.training.batches import Cursor, to_device
from covector.training.callbacks import Callback
from covector.training.checkpoint import latest_checkpoint
from covector.training.history import History, Stopped
from covector.training.interrupt import deferred_interrupt
from covector.training.metrics import JsonLines, TensorBoard
from covector.training.packing import pack
from covector.training.progress import ProgressBar, on_terminal
from covector.training.randomness import unchanged_random
from covector.training.run import Run
from covector.training.steps import step_rule

__all__ = ["train"]

Evaluate = Callable[[Objective], Mapping[str, float] | float]
Scheduler = LRScheduler | Callable[[torch.optim.Optimizer], LRScheduler]


def train(
    objective: Objective,
    batches: Iterable[Batch],
    *,
    estimator: Estimator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float | None = None,
    scheduler: Scheduler | None = None,
    subspace: Subspace | None = None,
    steps: int | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    callbacks: Iterable[Callback] = (),
    out: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: Literal["auto"] | bool = "auto",
    progress: bool = True,
) -> History:
    """Minimize ``objective`` over ``batches`` with any estimator and any optimizer.

    A step whose estimate was skipped (the estimator's ``nonfinite="skip"``) leaves the parameters as they are. Ctrl-C
    finishes the running step, writes a checkpoint and returns. The module's mode (train or eval) is the caller's.

    Args:
        objective: what to minimize; its parameters are changed in place.
        batches: any iterable of batches; with ``steps`` it is started again when it ends, unless it is an iterator.
        estimator: where the gradients come from; default :class:`~covector.Backprop`.
        optimizer: over ``objective.params.values()``, which then get a ``.grad``, or over ``[subspace.x]``.
        lr: instead of an optimizer: ``params -= lr * gradient`` in the gradient's carrier, so that nothing as large as
            the parameters is allocated.
        scheduler: a scheduler of ``optimizer``, or a function that makes one from the optimizer; steps once a step.
        subspace: train its coordinates instead of the parameters themselves.
        steps: how many in all, resumed ones included; default: one pass over ``batches``.
        accumulate: batches whose estimates are averaged for one step.
        clip_norm: largest norm of the gradient (of the coordinates' gradient in a subspace).
        evaluate: ``evaluate(objective)`` gives a number or named numbers; called in evaluation mode without autograd,
            every ``evaluate_every`` steps and at the end. Random numbers drawn in it do not change the training.
        evaluate_every: steps between evaluations; default: at the end only.
        callbacks: see :class:`Callback`.
        out: folder for ``metrics.jsonl``, ``tensorboard/`` (where it is installed) and ``checkpoints/``.
        checkpoint_every: steps between checkpoints; one is written at the end in any case.
        resume: ``"auto"`` goes on from the newest checkpoint in ``out`` if there is one, ``True`` requires one,
            ``False`` removes what an earlier run left in ``out`` and starts over.
        progress: show a bar if the standard error stream is a terminal.

    Returns:
        The :class:`History` of the whole run, with the parts before it was resumed.

    Raises:
        ArgumentError: a value out of range, before anything is changed.
        CompositionError: optimizer, subspace, scheduler and objective do not belong together.
        MismatchError: the checkpoint to resume from belongs to another setup.
        CorruptionError: the checkpoint is not whole.
        NonFiniteError: a loss or gradient is not finite and the estimator's policy is ``"raise"``.

    >>> objective = Objective.from_function(lambda p, batch: (p["x"] - batch).square().sum(), {"x": torch.zeros(2)})
    >>> history = train(objective, [torch.ones(2)], lr=0.25, steps=20)
    >>> objective.params["x"]
    tensor([1.0000, 1.0000])
    >>> history.losses[:3]
    [2.0, 0.5, 0.125]
    """
    for name, value in (("steps", steps), ("evaluate_every", evaluate_every), ("checkpoint_every", checkpoint_every)):
        _check_count(name, value)
    _check_count("accumulate", accumulate)
    _check_paths(out, checkpoint_every, resume)
    if clip_norm is not None and not 0.0 < clip_norm < math.inf:
        raise ArgumentError("clip_norm", clip_norm, "a positive finite number, or None")
    rule = step_rule(objective, optimizer, lr, subspace)
    folder = None if out is None else Path(out)
    run = Run(
        objective,
        Backprop() if estimator is None else estimator,
        rule,
        Cursor(batches, endless=steps is not None),
        _scheduler_of(scheduler, rule.optimizer),
        # the observers come last: what a callback adds to the record is written too
        [*_checked(callbacks), *_observers(folder, progress)],
        steps,
        folder,
    )
    # around the start of the loader's worker processes too: they inherit the handler and outlive a Ctrl-C
    with deferred_interrupt() as asked:
        _begin(run, resume)
        _run(run, asked, accumulate, clip_norm, evaluate, evaluate_every, checkpoint_every)
    return run.history


def _run(
    run: Run,
    asked: threading.Event,
    accumulate: int,
    clip_norm: float | None,
    evaluate: Evaluate | None,
    evaluate_every: int | None,
    checkpoint_every: int | None,
) -> None:
    started: list[Callback] = []
    try:
        for callback in run.callbacks:
            started.append(callback)
            callback.on_start(run)
        while not run.stop and not asked.is_set() and run.step != run.steps:
            if not _step(run, accumulate, clip_norm):
                break
            if evaluate is not None and evaluate_every and run.step % evaluate_every == 0:
                _evaluate(run, evaluate)
            if checkpoint_every and run.step % checkpoint_every == 0:
                run.save()
        run.history.stopped = _why(run, asked.is_set())
        try:
            if evaluate is not None and run.history.stopped != "interrupted":
                _evaluate(run, evaluate)
        finally:
            run.save()
    except BaseException:
        run.history.stopped = "error"
        raise
    finally:
        for callback in started:
            callback.on_end(run)


def _step(run: Run, accumulate: int, clip_norm: float | None) -> bool:
    """One step; false if there is no batch left for it."""
    begun = time.perf_counter()
    batches = run.cursor.take(accumulate)
    if not batches:
        if run.step == 0:
            raise ArgumentError("batches", run.cursor.batches, "at least one batch")
        return False
    estimate = _average(run.estimator, run.objective, batches)
    metrics = {"lr": run.rule.lr}
    norm = None if estimate.skipped else run.rule.apply(estimate.gradient, clip_norm)
    if clip_norm is not None:
        metrics["norm"] = math.nan if norm is None else norm
    if run.scheduler is not None:
        run.scheduler.step()
    seconds = time.perf_counter() - begun
    run.history.add_step(estimate.loss, seconds, metrics)
    record = {"step": run.step, "loss": estimate.loss, "seconds": seconds, **metrics}
    known = set(record)
    for callback in run.callbacks:
        callback.on_step(run, record)
    run.history.add_metrics({name: value for name, value in record.items() if name not in known})
    return True


def _average(estimator: Estimator, objective: Objective, batches: list[Batch]) -> Estimate:
    """The mean of the estimates on several batches, in their carrier; skipped ones are left out."""
    device = next(iter(objective.params.values())).device
    total, losses, skipped = None, [], None
    for batch in batches:
        estimate = estimator(objective, batch if device.type == "cpu" else to_device(batch, device))
        if estimate.skipped:
            skipped = estimate
            continue
        losses.append(estimate.loss)
        total = estimate if total is None else replace(total, gradient=total.gradient + estimate.gradient)
    if total is None:
        assert skipped is not None
        return skipped
    if len(losses) == 1:
        return total
    return replace(total, loss=statistics.fmean(losses), gradient=total.gradient / len(losses))


def _evaluate(run: Run, evaluate: Evaluate) -> None:
    if run.history.evaluations and run.history.evaluations[-1]["step"] == run.step:
        return
    module = run.objective.module
    modes = {} if module is None else {part: part.training for part in module.modules()}
    if module is not None:
        module.eval()
    try:
        with torch.no_grad(), unchanged_random():
            result = evaluate(run.objective)
    finally:
        for part, mode in modes.items():
            part.training = mode
    values = result if isinstance(result, Mapping) else {"value": result}
    record = {"step": run.step, **{name: float(value) for name, value in values.items()}}
    run.history.evaluations.append(record)
    for callback in run.callbacks:
        callback.on_evaluate(run, record)


def _why(run: Run, asked: bool) -> Stopped:
    if asked:
        return "interrupted"
    if run.steps is None or run.step == run.steps:
        return "callback" if run.stop and run.steps is None else "finished"
    return "callback" if run.stop else "exhausted"


def _begin(run: Run, resume: Literal["auto"] | bool) -> None:
    """Go on from a checkpoint or start over; refuse, before the first step, a state that cannot be saved."""
    if run.out is None:
        return
    pack(run.state_dict())
    found = latest_checkpoint(run.out)
    if resume is True and found is None:
        raise ArgumentError("resume", resume, f"a checkpoint in {run.out}; use 'auto' to start where there is none")
    if resume is False:
        for part in ("checkpoints", "tensorboard"):
            shutil.rmtree(run.out / part, ignore_errors=True)
    elif found is not None:
        run.resume(found)


def _observers(out: Path | None, progress: bool) -> list[Callback]:
    observers: list[Callback] = []
    if out is not None:
        observers.append(JsonLines(out / "metrics.jsonl"))
        if importlib.util.find_spec("tensorboard") is not None:
            observers.append(TensorBoard(out / "tensorboard"))
    if progress and on_terminal():
        observers.append(ProgressBar())
    return observers


def _scheduler_of(scheduler: Scheduler | None, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
    made = scheduler if scheduler is None or isinstance(scheduler, LRScheduler) else scheduler(optimizer)
    if isinstance(made, ReduceLROnPlateau):
        raise CompositionError("scheduler=ReduceLROnPlateau needs a metric: step it in a callback's on_evaluate")
    if made is not None and made.optimizer is not optimizer:
        raise CompositionError("scheduler belongs to another optimizer; pass a function: scheduler=lambda o: ...LR(o)")
    return made


def _checked(callbacks: Iterable[Callback]) -> list[Callback]:
    found = list(callbacks)
    for callback in found:
        if not isinstance(callback, Callback):
            raise ArgumentError("callbacks", callback, "instances of covector.training.Callback")
    return found


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ArgumentError(name, value, "a whole number of at least 1")


def _check_paths(out: object, checkpoint_every: int | None, resume: object) -> None:
    if resume not in ("auto", True, False):
        raise ArgumentError("resume", resume, "'auto', True or False")
    for name, value in (("checkpoint_every", checkpoint_every), ("resume", True if resume is True else None)):
        if out is None and value is not None:
            raise ArgumentError(name, value, "an output folder: out=")
