"""What each parameter is for, read from the module tree: matrix optimizers must not treat an embedding as a matrix.

The number of dimensions does not tell: an embedding and a classifier's head are matrices too, but what is right
for a hidden matrix (to be orthogonalized, say) is wrong for them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, nn

from covector.errors import ArgumentError

__all__ = ["Role", "Roles", "grouped", "roles"]


class Role(StrEnum):
    """What a parameter is for.

    >>> Role("hidden") is Role.HIDDEN
    True
    """

    HIDDEN = "hidden"
    EMBEDDING = "embedding"
    HEAD = "head"
    CONVOLUTION = "convolution"
    GAIN = "gain"
    BIAS = "bias"
    POINT = "point"
    OTHER = "other"


# gates or projections that one parameter stacks along its first dimension
_STACKED = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Found:
    """A parameter's role, how many matrices it stacks, and whether it is stored input by output."""

    role: Role
    blocks: int = 1
    transposed: bool = False


class Roles(Mapping[str, Role]):
    """Roles by parameter name; prints as a table.

    Args:
        model: the module whose parameters these are.
        found: role and layout of each parameter.

    >>> print(roles(nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3), nn.Linear(3, 5))))
    parameter  shape  role       blocks
    0.weight   5 x 2  embedding  1
    1.weight   3 x 2  hidden     1
    1.bias     3      bias       1
    2.weight   5 x 3  head       1
    2.bias     5      bias       1
    """

    def __init__(self, model: nn.Module, found: Mapping[str, Found]) -> None:
        self.model = model
        self.found = dict(found)

    def __getitem__(self, name: str) -> Role:
        return self.found[name].role

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        shapes = {name: " x ".join(map(str, p.shape)) or "scalar" for name, p in self.model.named_parameters()}
        rows = [("parameter", "shape", "role", "blocks")]
        rows += [(name, shapes[name], found.role.value, str(found.blocks)) for name, found in self.found.items()]
        widths = [max(len(row[i]) for row in rows) + 2 for i in range(4)]
        return "\n".join("".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def roles(model: nn.Module, override: Mapping[str, str | Role] | None = None) -> Roles:
    """Infer the role of each trainable parameter of a module.

    Modules tell: ``nn.Embedding``, ``nn.Linear`` (the last one, or a Hugging Face model's output embedding, is the
    head; a head tied to an embedding is an embedding), convolutions, recurrent cells and attention (whose stacked
    gates and projections are counted as blocks). Parameters of other modules: vectors named like a bias are biases,
    other vectors are gains, matrices are hidden.

    Args:
        model: the module.
        override: role by name or shell pattern, for what is inferred wrong; the first pattern that fits counts.

    Raises:
        ArgumentError: a role that does not exist, or a pattern that fits no parameter.

    >>> roles(nn.Linear(2, 2), override={"weight": "hidden"})["weight"].value
    'hidden'
    """
    found: dict[str, Found] = {}
    seen: dict[int, str] = {}
    head = _head(model)
    for path, module in model.named_modules():
        for own, param in module.named_parameters(recurse=False):
            if not param.requires_grad or id(param) in seen:
                continue
            name = f"{path}.{own}" if path else own
            seen[id(param)] = name
            found[name] = _infer(module, own, param, module is head)
    for pattern, role in (override or {}).items():
        names = fnmatch.filter(found, pattern)
        if not names:
            raise ArgumentError("override", pattern, f"a name or pattern among {list(found)}")
        if role not in list(Role):
            raise ArgumentError("override", role, "one of " + ", ".join(r.value for r in Role))
        for name in names:
            found[name] = Found(Role(role), found[name].blocks, found[name].transposed)
    return Roles(model, found)


def _head(model: nn.Module) -> nn.Module | None:
    """The module that gives the outputs."""
    get: Any = getattr(model, "get_output_embeddings", None)
    declared = get() if callable(get) else None
    if isinstance(declared, nn.Module):
        return declared
    weighty = [m for m in model.modules() if isinstance(m, (nn.Linear, *_CONVOLUTIONS))]
    return weighty[-1] if len(weighty) > 1 and isinstance(weighty[-1], nn.Linear) else None


def _infer(module: nn.Module, own: str, param: Tensor, is_head: bool) -> Found:
    if getattr(param, "manifold", None) is not None:
        return Found(Role.POINT)
    if "bias" in own:
        return Found(Role.BIAS)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Found(Role.EMBEDDING)
    if param.ndim < 2:
        return Found(Role.GAIN)
    if isinstance(module, _CONVOLUTIONS):
        return Found(Role.CONVOLUTION, transposed=getattr(module, "transposed", False))
    if is_head:
        return Found(Role.HEAD)
    if param.ndim > 2:
        return Found(Role.OTHER)
    # the Conv1D of Hugging Face's GPT-2 is a linear layer that keeps its weight input by output
    transposed = type(module).__name__ == "Conv1D"
    return Found(Role.HIDDEN, _blocks(module, own), transposed)


def _blocks(module: nn.Module, own: str) -> int:
    if isinstance(module, nn.MultiheadAttention):
        return 3 if own == "in_proj_weight" else 1
    return _STACKED.get(type(module), 1) if own.startswith("weight_") and "hr" not in own else 1


MATRICES = (Role.HIDDEN, Role.CONVOLUTION)


def grouped(params: Any, matrix: Mapping[str, Any], rest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Param groups for an optimizer of matrices: hidden matrices and convolutions, and the rest.

    Args:
        params: a module, whose roles are inferred; a :class:`Roles`; or parameters, of which those with two
            dimensions or more count as matrices.
        matrix: entries of the group of matrices; it also gets ``blocks`` and ``transposed``.
        rest: entries of the other group.

    Returns:
        Groups with at least one parameter each; matrices of different layout in groups of their own.

    >>> [len(g["params"]) for g in grouped(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {}, {})]
    [1, 3]
    """
    table = roles(params) if isinstance(params, nn.Module) else params
    if isinstance(table, Roles):
        live = dict(table.model.named_parameters())
        pairs = [(live[name], found) for name, found in table.found.items()]
    else:
        given = [p[1] if isinstance(p, tuple) else p for p in params]
        pairs = [(p, Found(Role.HIDDEN if p.ndim >= 2 else Role.OTHER)) for p in given]
    layouts = sorted({(f.blocks, f.transposed) for _, f in pairs if f.role in MATRICES})
    groups = [
        {
            "params": [p for p, f in pairs if f.role in MATRICES and (f.blocks, f.transposed) == (blocks, transposed)],
            "blocks": blocks,
            "transposed": transposed,
            **matrix,
        }
        for blocks, transposed in layouts
    ]
    others = [p for p, f in pairs if f.role not in MATRICES]
    return [*groups, {"params": others, **rest}] if others else groups
