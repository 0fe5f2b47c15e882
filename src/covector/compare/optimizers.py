"""From the name of an optimizer to one for a model."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from covector import optim
from covector.errors import ArgumentError, require_extra
from covector.optim.roles import grouped

__all__ = ["build", "default_lr", "names", "resolve", "split_names"]

_FORM = re.compile(r"(?P<name>[\w.\-]+?)\s*(?:\((?P<options>.*)\))?", re.S)
_EXTRAS = {"pytorch_optimizer": "compare"}
# torch's Muon takes matrices only; what is left goes where its authors put it
_MATRICES_ONLY = {"torch.Muon": {"lr": 3e-3}}


def names() -> dict[str, type[optim.Optimizer]]:
    """The optimizers of :mod:`covector.optim`, by lower-case name.

    >>> names()["adamw"].__name__
    'AdamW'
    """
    classes = {name: getattr(optim, name) for name in optim.__all__}
    return {
        name.lower(): value
        for name, value in classes.items()
        if inspect.isclass(value) and issubclass(value, optim.Optimizer) and value is not optim.Optimizer
    }


def split_names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, commas inside brackets left alone.

    >>> split_names("adamw, adam(betas=(0.9, 0.99)),torch.SGD")
    ('adamw', 'adam(betas=(0.9, 0.99))', 'torch.SGD')
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts if part.strip())


def resolve(text: str) -> list[str]:
    """Check a name and complete it: ``"all"`` is every optimizer of :mod:`covector.optim`.

    Args:
        text: ``"muon"`` (ours), ``"torch.AdamW"``, ``"pytorch_optimizer.Lion"``; options as a call:
            ``"adamw(weight_decay=0.1)"``.

    Raises:
        ArgumentError: no such optimizer, or options that are not literals.
        MissingExtraError: its package is not installed.

    >>> resolve("AdamW(weight_decay=0.1)"), resolve("torch.SGD")
    (['adamw(weight_decay=0.1)'], ['torch.SGD'])
    """
    if text == "all":
        return list(names())
    name, options = _parse(text)
    _class(name)
    known = name.lower() if "." not in name else name
    return [known + (f"({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else "")]


def build(text: str, model: nn.Module, lr: float | None = None) -> Any:
    """The optimizer of a name for a model.

    Args:
        text: as :func:`resolve` takes it.
        model: ours get the module, so that they can tell hidden matrices from the rest; others its parameters.
        lr: learning rate; default: the optimizer's own.

    >>> type(build("torch.SGD(momentum=0.9)", nn.Linear(2, 1), lr=0.1)).__name__
    'SGD'
    """
    name, options = _parse(text)
    if lr is not None:
        options["lr"] = lr
    made = _class(name)
    if name in _MATRICES_ONLY:
        return _Pair(made, model, options, _MATRICES_ONLY[name])
    return made(model if "." not in name else list(model.parameters()), **options)


def default_lr(text: str) -> float:
    """The learning rate an optimizer has when none is given; 1e-3 where it insists on one.

    >>> default_lr("adamw")
    0.001
    """
    name, options = _parse(text)
    chosen = options.get("lr", inspect.signature(_class(name)).parameters.get("lr"))
    chosen = chosen.default if isinstance(chosen, inspect.Parameter) else chosen
    return float(chosen) if isinstance(chosen, (int, float)) and chosen > 0 else 1e-3


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ArgumentError("optimizers", text, "a name, or a name with options: adamw(weight_decay=0.1)")
    try:
        call = ast.parse(f"f({match['options'] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if call.args or "None" in options:
            raise ValueError
    except (ValueError, SyntaxError) as error:
        raise ArgumentError("optimizers", text, "options as name=literal: adamw(weight_decay=0.1)") from error
    return match["name"], options


def _class(name: str) -> Any:
    package, _, attribute = name.rpartition(".")
    if not package:
        found = names()
        if name.lower() not in found:
            known = ", ".join(found)
            raise ArgumentError("optimizers", name, f"one of {known}, all, torch.NAME or pytorch_optimizer.NAME")
        return found[name.lower()]
    if package in _EXTRAS:
        require_extra(package, _EXTRAS[package])
    try:
        value = getattr(importlib.import_module("torch.optim" if package == "torch" else package), attribute)
    except (ImportError, AttributeError) as error:
        raise ArgumentError("optimizers", name, "an optimizer class of an installed package") from error
    if not (inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)):
        raise ArgumentError("optimizers", name, "an optimizer class")
    return value


class _Pair:
    """An optimizer of matrices for the hidden matrices of a model, and Adam at a fixed learning rate for the rest."""

    def __init__(self, matrix: Any, model: nn.Module, options: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        groups = grouped(model, {"matrix": True}, {"matrix": False})
        chosen = [p for group in groups if group["matrix"] for p in group["params"] if p.ndim == 2]
        held = {id(p) for p in chosen}
        others = [p for p in model.parameters() if id(p) not in held]
        self.parts = [matrix(chosen, **options)] if chosen else []
        self.parts += [torch.optim.AdamW(others, **rest)] if others else []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:
        return {key: value for part in self.parts for key, value in part.state.items()}

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()
