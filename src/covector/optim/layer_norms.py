"""A norm for each parameter of a model, by what the parameter is for, and the norm that they make together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from covector.errors import MismatchError
from covector.optim.matrices import as_matrices, from_matrices
from covector.optim.norms import RMS2RMS, BiasRMS, ColNorm, Frobenius, MatrixNorm, Norm, RowNorm
from covector.optim.roles import Found, Role, Roles, roles
from covector.trees import Params

__all__ = ["Laid", "Layout", "Modular", "auto_norms", "layouts"]


@dataclass(frozen=True)
class Laid(Norm):
    """A norm of a parameter that is not stored as one matrix ``output x input``.

    Args:
        inner: the norm of one matrix.
        blocks: matrices stacked along the outputs, such as the gates of an LSTM; the largest of their norms counts.
        transposed: stored input by output, as the embeddings of torch are.

    >>> Laid(ColNorm(scale="none"), transposed=True).norm(torch.tensor([[3.0, 4.0], [1.0, 0.0]])).item()
    5.0
    """

    inner: MatrixNorm
    blocks: int = 1
    transposed: bool = False

    def norm(self, w: Tensor) -> Tensor:
        """``||W||``, a scalar."""
        return self.inner.norm(as_matrices(w, self.blocks, self.transposed)).amax()

    def dual(self, g: Tensor) -> Tensor:
        """``||G||_*``, a scalar: the sum over the blocks."""
        return self.inner.dual(as_matrices(g, self.blocks, self.transposed)).sum()

    def lmo(self, g: Tensor) -> Tensor:
        """``T(G)``: each block's own."""
        return from_matrices(self.inner.lmo(as_matrices(g, self.blocks, self.transposed)), g, self.transposed)

    def dualize(self, g: Tensor) -> Tensor:
        """``||G||_* T(G)``."""
        direction = self.lmo(g)
        return (direction * g).sum() * direction


@dataclass(frozen=True)
class Modular:
    """The largest of the norms of a model's layers: ``max_l s_l ||W_l||_l``.

    Args:
        norms: norm of each parameter, by name.
        weights: ``s_l`` by name, default 1: how sharply the model depends on that layer.

    Raises:
        MismatchError: a gradient without a norm, or a weight of an unknown name.

    >>> both = Modular({"a": Frobenius(), "b": Frobenius()}, weights={"b": 2.0})
    >>> g = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([2.0])}
    >>> both.norm(g).item(), both.dual(g).item(), both.lmo(g)["b"].item()
    (5.0, 6.0, 0.5)
    """

    norms: Mapping[str, Norm]
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check(self.weights)

    def norm(self, w: Params) -> Tensor:
        """``max_l s_l ||W_l||_l``."""
        self._check(w)
        return torch.stack([self.norms[name].norm(t) * self._weight(name) for name, t in w.items()]).amax()

    def dual(self, g: Params) -> Tensor:
        """``sum_l ||G_l||_* / s_l``."""
        self._check(g)
        return torch.stack([self.norms[name].dual(t) / self._weight(name) for name, t in g.items()]).sum()

    def lmo(self, g: Params) -> Params:
        """``T_l(G_l) / s_l`` for each layer."""
        self._check(g)
        return {name: self.norms[name].lmo(t) / self._weight(name) for name, t in g.items()}

    def dualize(self, g: Params) -> Params:
        """All layers' directions times the one dual norm."""
        dual = self.dual(g)
        return {name: dual * t for name, t in self.lmo(g).items()}

    def _weight(self, name: str) -> float:
        return self.weights.get(name, 1.0)

    def _check(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.norms]
        if unknown:
            raise MismatchError(f"no norm for {unknown}; there are norms for {list(self.norms)}")


class Layout(NamedTuple):
    """A parameter, the norm of its matrices, and how it stores them."""

    name: str
    param: Tensor
    norm: MatrixNorm
    blocks: int
    transposed: bool


def auto_norms(model: nn.Module | Roles, method: str = "auto") -> dict[str, Norm]:
    """A norm for each trainable parameter, by its role.

    Hidden matrices and convolutions get :class:`RMS2RMS`, embeddings :class:`ColNorm` (one token at a time is read),
    the head :class:`RowNorm`, gains and biases :class:`BiasRMS`, everything else :class:`Frobenius`.

    Args:
        model: a module, or its :func:`~covector.optim.roles`, where some were overridden.
        method: of the polar factor, as for :class:`Spectral`.

    Returns:
        Norms by parameter name, for :class:`Modular` or one at a time.

    >>> norms = auto_norms(nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3), nn.Linear(3, 5)))
    >>> type(norms["0.weight"].inner).__name__, type(norms["1.weight"]).__name__, type(norms["2.weight"]).__name__
    ('ColNorm', 'RMS2RMS', 'RowNorm')
    """
    return {
        layout.name: Laid(layout.norm, layout.blocks, layout.transposed)
        if layout.blocks > 1 or layout.transposed or layout.param.ndim > 2
        else layout.norm
        for layout in layouts(model, method)
    }


def layouts(params: Any, method: str = "auto") -> list[Layout]:
    """The norm and the layout of each parameter of a module, of :class:`Roles`, or of an iterable of parameters."""
    table = roles(params) if isinstance(params, nn.Module) else params
    if isinstance(table, Roles):
        live = dict(table.model.named_parameters())
        return [_layout(name, live[name], found, method) for name, found in table.found.items()]
    given = [p if isinstance(p, tuple) else (str(i), p) for i, p in enumerate(table)]
    return [_layout(name, p, Found(Role.HIDDEN if p.ndim >= 2 else Role.GAIN), method) for name, p in given]


def _layout(name: str, param: Tensor, found: Found, method: str) -> Layout:
    blocks, transposed = found.blocks, found.transposed
    match found.role:
        case Role.HIDDEN:
            return Layout(name, param, RMS2RMS(method), blocks, transposed)
        case Role.CONVOLUTION:
            taps = param[0, 0].numel()
            return Layout(name, param, RMS2RMS(method, taps=taps), blocks, transposed)
        case Role.EMBEDDING if param.ndim == 2:
            return Layout(name, param, ColNorm(), 1, True)
        case Role.HEAD:
            return Layout(name, param, RowNorm(), blocks, transposed)
        case Role.GAIN | Role.BIAS:
            return Layout(name, param, BiasRMS(), 1, False)
        case _:
            return Layout(name, param, Frobenius(), 1, False)
