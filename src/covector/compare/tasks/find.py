"""From the name of a task to its function."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from covector.compare.tasks.base import Task, from_loaders
from covector.errors import ArgumentError

__all__ = ["TASKS", "find_task"]

TASKS = {
    "charlm": "a character language model of two hidden layers on English text; a run of 300 steps takes seconds",
    "cnn": "a small convolutional network on 8 x 8 digits; cnn:mnist and cnn:fashion-mnist for 28 x 28 images",
    "transformer": "a character language model of two attention blocks on English text",
    "regression": "a linear regression of 10 numbers; a run takes milliseconds",
}


def find_task(name: str) -> Callable[[int], Task]:
    """The function of a task, which takes a seed.

    Args:
        name: one of :data:`TASKS`, or ``"module:function"`` of a function that returns ``(model, loss, (train,
            validation))`` or a :class:`Task`. It is called with ``seed=...`` where it takes that; torch is seeded
            in any case.

    Raises:
        ArgumentError: no such task, module or function.

    >>> sum(p.numel() for p in find_task("regression")(0).model.parameters())
    11
    """
    own, _, variant = name.partition(":")
    if own in TASKS:
        build = getattr(importlib.import_module(f"covector.compare.tasks.{own}"), "task", None)
        assert build is not None
        return _with_variant(build, own, variant) if variant else build
    return _foreign(name)


def _with_variant(build: Callable[..., Task], name: str, variant: str) -> Callable[[int], Task]:
    if "data" not in inspect.signature(build).parameters:
        raise ArgumentError("task", f"{name}:{variant}", f"{name!r} alone; it has no variants")
    return lambda seed: build(seed, data=variant)


def _foreign(name: str) -> Callable[[int], Task]:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ArgumentError("task", name, "module:function, or one of " + ", ".join(TASKS))
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ArgumentError("task", name, f"an importable module:function ({error})") from error
    takes_seed = "seed" in inspect.signature(function).parameters

    def build(seed: int) -> Task:
        torch.manual_seed(seed)
        made: Any = function(seed=seed) if takes_seed else function()
        if isinstance(made, Task):
            return made
        if not isinstance(made, (tuple, list)) or len(made) != 3:
            raise ArgumentError("task", name, "a function that returns (model, loss, (train, validation))")
        return from_loaders(*made)

    return build
