"""Subject: a model, its loss and the batches it is looked at on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from covector.compare import find_task
from covector.errors import ArgumentError, DataError
from covector.landscape import Watch
from covector.objective import Batch, Objective
from covector.training import train
from covector.training.batches import to_device

__all__ = ["Subject", "subject_from_model", "subject_from_task", "train_subject"]


class Subject(NamedTuple):
    """What is looked at.

    Attributes:
        name: for titles.
        objective: the loss, in evaluation mode.
        batches: what it is looked at on.
        training: ``training(steps)``: that many batches to train on; None where that is not offered.
    """

    name: str
    objective: Objective
    batches: list[Batch]
    training: Callable[[int], Iterator[Batch]] | None = None


def subject_from_task(name: str, batches: int = 4, seed: int = 0, device: str = "cpu") -> Subject:
    """A task of ``covector compare``, or ``module:function`` of yours that returns (model, loss, loaders).

    Args:
        name: of the task.
        batches: training batches to look at, the first ones.
        seed: of a built-in task's initial weights and order.
        device: where the model is put.

    Raises:
        ArgumentError: no such task, or ``batches`` below 1.

    >>> subject = subject_from_task("regression", batches=2)
    >>> len(subject.batches), subject.objective.module.training
    (2, False)
    """
    _check_count("batches", batches)
    task = find_task(name)(seed)
    place = torch.device(device)
    task.model.to(place).eval()

    def stream(count: int) -> Iterator[Batch]:
        return (to_device(batch, place) for batch in task.batches(count))

    return Subject(name, task.loss, list(stream(batches)), lambda steps: itertools.islice(stream(steps), steps))


def subject_from_model(
    model: str, data: str, *, by: str = "client", batches: int = 4, batch_size: int = 8, max_length: int = 128,
    seed: int = 0, dtype: str = "float32", device: str = "cpu",
) -> Subject:  # fmt: skip
    """A language model and texts, as ``covector finetune`` takes them.

    Args:
        model: name of a model in the catalog, or a folder in Hugging Face's format.
        data: name of a corpus in the catalog, or a JSONL file.
        by: the field of a JSONL file that names its client.
        batches: how many to look at.
        batch_size: texts of each.
        max_length: tokens of each text at most.
        seed: of the choice of texts.
        dtype: of the parameters.
        device: where the model is put.

    Raises:
        ArgumentError: counts below 1.
        DataError: too few texts for the batches.
        MissingExtraError: the extra ``language`` is not installed.
    """
    _check_count("batches", batches)
    _check_count("batch_size", batch_size)
    from covector import language
    from covector.finetune.federation import gather
    from covector.finetune.settings import Settings

    settings = Settings(model=model, data=data, by=by, max_length=max_length, seed=seed, dtype=dtype, device=device)
    loaded, tokenizer = language.load_model(model, dtype, device)
    federation = gather(settings, tokenizer)
    loaded.eval()
    examples = [example for part in federation.train.values() for example in part]
    if len(examples) < batches * batch_size:
        raise DataError(f"data={data!r} has {len(examples)} texts, fewer than {batches} batches of {batch_size}")
    stream = federation.task.batches(examples, batch_size, seed)
    place = torch.device(device)
    chosen = [to_device(batch, place) for batch in itertools.islice(stream, batches)]
    return Subject(f"{model} on {data}", federation.task.objective(loaded), chosen)


def train_subject(
    subject: Subject, steps: int, lr: float, momentum: float = 0.0, budget: float = 1.0, **options: Any
) -> list[dict[str, float]]:
    """Train a subject by gradient descent and follow its sharpness.

    Args:
        subject: one that can be trained.
        steps: how many.
        lr: learning rate.
        momentum: heavy-ball momentum.
        budget: share of the time that following may take.
        options: further ones of :class:`~covector.landscape.Watch`.

    Returns:
        ``{"step": ..., "sharpness": ..., "sharpness_ratio": ...}`` of each measurement.

    Raises:
        ArgumentError: a subject that cannot be trained, or ``steps`` below 1.

    >>> subject = subject_from_task("regression")
    >>> records = train_subject(subject, steps=3, lr=0.1)
    >>> records[0]["step"]
    1
    """
    _check_count("train", steps)
    if subject.training is None:
        raise ArgumentError("train", steps, "0 for this subject: it is looked at as it is")
    module = subject.objective.module
    assert module is not None
    watch = Watch(subject.objective, subject.batches[0], budget=budget, **options)
    optimizer = torch.optim.SGD(subject.objective.params.values(), lr=lr, momentum=momentum)
    module.train()
    try:
        train(
            subject.objective, subject.training(steps), optimizer=optimizer, steps=steps, callbacks=[watch],
            progress=False,
        )  # fmt: skip
    finally:
        module.eval()
    return watch.records


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(name, value, "a whole number of at least 1")
