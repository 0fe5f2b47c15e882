"""Weight conditioning: layers whose weights are used with their rows (or columns) scaled to the same length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from covector.errors import ArgumentError, CompositionError
from covector.linalg.checks import check_choice

__all__ = ["MODES", "Equilibrated", "condition", "condition_numbers", "strip"]

MODES = ("row", "col", "row_col")
TINY = 1e-12  # a row of zeros stays one

# the layers whose weight [out, in, ...] is the matrix [out, in * ...]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Equilibrated(nn.Module):
    """The parametrization ``W -> gain * P W`` that divides each row of ``W`` by its length.

    Args:
        mode: ``"row"``: every output's weights get length 1. ``"col"``: every input's. ``"row_col"``: first the rows,
            then the columns, scaled so that rows have length 1 in the mean.
        gain: multiplies the result (default 1).
        detach: do not differentiate through the lengths.

    >>> Equilibrated()(torch.tensor([[3.0, 4.0], [0.0, 0.5]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """

    def __init__(self, mode: str = "row", gain: float | None = None, detach: bool = False) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        if gain is not None and not 0.0 < gain < float("inf"):
            raise ArgumentError("gain", gain, "a number above 0, or None for 1")
        self.mode, self.gain, self.detach = mode, gain, detach

    def forward(self, weight: Tensor) -> Tensor:
        """Scale ``[out, in, ...]``, taken as the matrix ``[out, in * ...]``."""
        matrix = weight.flatten(1)
        if self.mode != "col":
            matrix = matrix / self._lengths(matrix, 1)
        if self.mode != "row":
            balance = 1.0 if self.mode == "col" else (matrix.shape[0] / matrix.shape[1]) ** 0.5
            matrix = matrix / self._lengths(matrix, 0) * balance
        matrix = matrix if self.gain is None else matrix * self.gain
        return matrix.view_as(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is stored when a weight is assigned: the weight itself, to be scaled when it is used."""
        return weight

    def _lengths(self, matrix: Tensor, dim: int) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(matrix, dim=dim, keepdim=True).clamp_min(TINY)
        return lengths.detach() if self.detach else lengths

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return f"mode={self.mode!r}, gain={self.gain}, detach={self.detach}"


def condition(
    module: nn.Module, mode: str = "row", gain: float | None = None, detach: bool = False, keep: Sequence[str] = ()
) -> nn.Module:
    """Condition the weights of all linear and convolutional layers of a module, in place.

    The layers then compute with ``gain * P W``, where P divides each row by its length, and train W through P. The
    outputs no longer depend on the scale of a row; a gradient has no part along a row, and the effective step falls as
    the row grows. It is weight normalization with its lengths fixed to ``gain``. Leave the last layer out (``keep``) or
    give it a gain: logits of rows of length 1 are small. After ReLU ``gain = 2 ** 0.5`` keeps the signal's size.

    Args:
        module: a layer, or a module that contains layers (Linear, Conv1d, Conv2d, Conv3d).
        mode: ``"row"`` (default), ``"col"`` or ``"row_col"``, see :class:`Equilibrated`.
        gain: multiplies the conditioned weights (default 1).
        detach: do not differentiate through the lengths (default: do).
        keep: names of layers, as in ``named_modules()``, that stay as they are.

    Returns:
        The module.

    Raises:
        ArgumentError: an unknown mode, a gain that is not positive, a name in ``keep`` that is no layer, or nothing to
            condition.
        CompositionError: a weight is conditioned already. Nothing was changed.

    Source: Saratchandran, Wang, Lucey, "Weight conditioning for smooth optimization of neural networks" (2024); Van der
    Sluis (1969): no scaling of rows gives a condition number better by more than the square root of their number.

    >>> layer = condition(nn.Linear(3, 2))
    >>> torch.linalg.vector_norm(layer.weight, dim=1).detach().round(decimals=5)
    tensor([1., 1.])
    """
    scaling = Equilibrated(mode, gain, detach)
    found = dict(_layers(module))
    unknown = [name for name in keep if name not in found]
    if unknown:
        raise ArgumentError("keep", unknown, f"names of layers: {', '.join(found) or 'there are none'}")
    chosen = {name: layer for name, layer in found.items() if name not in keep}
    if not chosen:
        raise ArgumentError("module", type(module).__name__, "a module with a Linear or Conv layer to condition")
    for name, layer in chosen.items():
        if _conditioned(layer):
            raise CompositionError(f"the weight of {name or 'the module'!r} is conditioned already; strip() it first")
    for layer in chosen.values():
        parametrize.register_parametrization(layer, "weight", Equilibrated(scaling.mode, gain, detach))
    return module


def strip(module: nn.Module) -> nn.Module:
    """Fold the conditioning into plain weights, for inference or export, in place. Outputs do not change.

    Args:
        module: what :func:`condition` was called with, or a part of it.

    Returns:
        The module; layers that are not conditioned stay as they are.

    Raises:
        CompositionError: a weight has other parametrizations too. Nothing was changed.

    >>> layer = strip(condition(nn.Linear(3, 2)))
    >>> type(layer.weight).__name__, hasattr(layer, "parametrizations")
    ('Parameter', False)
    """
    chosen = {name: layer for name, layer in _layers(module) if _conditioned(layer)}
    for name, layer in chosen.items():
        if len(_parametrizations(layer)) > 1:
            raise CompositionError(f"the weight of {name!r} has other parametrizations; remove all of them at once")
    for layer in chosen.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


@torch.no_grad()
def condition_numbers(model: nn.Module) -> dict[str, float]:
    """The condition number (largest over smallest singular value) of each layer's weight, as the layer uses it.

    Args:
        model: a layer or a module that contains layers.

    Returns:
        By the layer's name; infinity for a matrix without full rank.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([4.0, 0.5])))
    >>> condition_numbers(nn.Sequential(layer)), condition_numbers(condition(layer))
    ({'0': 8.0}, {'': 1.0})
    """
    numbers = {}
    for name, layer in _layers(model):
        values = torch.linalg.svdvals(_weight(layer).flatten(1).double())
        numbers[name] = float(values[0] / values[-1]) if values[-1] > 0 else float("inf")
    return numbers


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, child) for name, child in module.named_modules() if isinstance(child, LAYERS))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _parametrizations(layer: nn.Module) -> list[nn.Module]:
    if not parametrize.is_parametrized(layer, "weight"):
        return []
    return list(layer.parametrizations["weight"])  # type: ignore[index]


def _conditioned(layer: nn.Module) -> bool:
    return any(isinstance(entry, Equilibrated) for entry in _parametrizations(layer))
