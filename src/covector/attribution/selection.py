"""One number an example: which output is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from covector.errors import ArgumentError, CompositionError, MismatchError, UnsupportedError

__all__ = ["Function", "Target", "check_inputs", "labels_of", "select"]

Function = Callable[[Tensor], Any]
Target = int | Tensor | Callable[..., Tensor] | None


def select(outputs: Any, target: Target, labels: Tensor | None = None) -> Tensor:
    """The explained number of each example.

    Args:
        outputs: what ``f`` returned; a tensor ``[rows, ...]`` unless ``target`` is a function.
        target: None for outputs ``[rows]`` or ``[rows, 1]``; a class for outputs ``[rows, classes]``; a tensor of
            classes, one an example; or a function of the outputs, or of the outputs and the labels, to ``[rows]``.
        labels: what belongs to each row: given to ``target``, or the classes themselves where that is a tensor.

    Returns:
        ``[rows]``.

    Raises:
        ArgumentError: no such class, or outputs from which one must be chosen.
        MismatchError: not one number a row.

    >>> import torch
    >>> scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> select(scores, 1), select(scores, lambda out: out.logsumexp(1) - out[:, 0])
    (tensor([2., 4.]), tensor([1.3133, 1.3133]))
    """
    if callable(target) and not isinstance(target, Tensor):
        chosen = target(outputs) if labels is None else target(outputs, labels)
        if chosen.ndim != 1:
            raise MismatchError(f"target returned shape {tuple(chosen.shape)}; expected one number a row, [rows]")
        return chosen
    if not isinstance(outputs, Tensor):
        raise ArgumentError("target", target, f"a function that takes a number from a {type(outputs).__name__}")
    if target is None:
        if outputs.numel() != len(outputs):
            raise ArgumentError("target", None, f"which number of outputs of shape {tuple(outputs.shape)} to explain")
        return outputs.reshape(-1)
    if outputs.ndim != 2:
        raise ArgumentError("target", target, f"a function, for outputs of shape {tuple(outputs.shape)}")
    classes = target if isinstance(target, int) else labels
    assert classes is not None
    low, high = (classes, classes) if isinstance(classes, int) else (int(classes.min()), int(classes.max()))
    if not -outputs.shape[1] <= low <= high < outputs.shape[1]:
        raise ArgumentError("target", (low, high), f"classes of outputs of shape {tuple(outputs.shape)}")
    if isinstance(classes, int):
        return outputs[:, classes]
    return outputs.gather(1, classes.reshape(-1, 1) % outputs.shape[1])[:, 0]


def labels_of(target: Target, labels: Tensor | None, x: Tensor) -> Tensor | None:
    """What must be repeated with the examples: labels, or a tensor of classes.

    >>> import torch
    >>> labels_of(torch.tensor([2, 0]), None, torch.zeros(2, 3))
    tensor([2, 0])
    """
    found = target if isinstance(target, Tensor) else labels
    if isinstance(target, Tensor) and labels is not None:
        raise ArgumentError("labels", tuple(labels.shape), "None where target is a tensor of classes")
    if found is not None and (found.ndim == 0 or len(found) != len(x)):
        raise MismatchError(f"{len(x)} examples, but labels of shape {tuple(found.shape)}; expected one each")
    return found


def check_inputs(f: Function, x: Tensor) -> None:
    """Refuse inputs that have no derivative, and modules that mix the examples of a batch."""
    if not x.is_floating_point():
        raise UnsupportedError(f"x has dtype {x.dtype}; expected floating point: for tokens, pass their embeddings")
    if x.ndim < 2 or x.numel() == 0:
        raise ArgumentError("x.shape", tuple(x.shape), "a batch [examples, ...]; pass x[None] for a single input")
    if isinstance(f, nn.Module):
        mixing = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        for name, module in f.named_modules():
            if isinstance(module, mixing) and module.training:
                raise CompositionError(
                    f"{name or type(f).__name__} is in training mode, so that an example's output depends on others "
                    "or on chance; call f.eval() first"
                )
