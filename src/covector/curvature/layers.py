"""What a layer's inputs, and the gradients of its outputs, say about the per-example gradients of its parameters.

Each function takes the layer, its input ``x`` ``[B, ...]`` and the gradients ``d`` ``[C B, ...]`` of its output, for
``C`` cotangents one after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from covector.curvature.factors import Explicit, Factors, Product, Rows

__all__ = ["LAYERS", "is_odd"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def is_odd(layer: nn.Module) -> bool:
    """Whether an option of the layer makes it another kind of function than the one its formula is for.

    >>> is_odd(nn.Conv2d(2, 2, 1)), is_odd(nn.Conv2d(2, 2, 1, groups=2))
    (False, True)
    """
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        return layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros"
    if isinstance(layer, nn.Embedding):
        return layer.scale_grad_by_freq or layer.max_norm is not None or layer.sparse
    if isinstance(layer, BatchNorm):
        return layer.training or layer.running_mean is None
    return False


def _linear(layer: nn.Linear, x: Tensor, d: Tensor) -> dict[str, Factors]:
    d = d.reshape(len(d), -1, layer.out_features)
    return {"weight": Product(d, x.reshape(len(x), -1, layer.in_features)), "bias": Explicit(d.sum(1))}


def _convolution(layer: nn.Conv1d | nn.Conv2d, x: Tensor, d: Tensor) -> dict[str, Factors]:
    assert not isinstance(layer.padding, str)
    flat = isinstance(layer, nn.Conv1d)
    options = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
    if flat:  # unfold knows images only: one of a single row
        x, fill = x[:, :, None], (1, 1, 0, 1)
        options = [(own, *pair) for own, pair in zip(fill, options, strict=True)]
    patches = F.unfold(x, *options)
    d = d.flatten(2)
    return {"weight": Product(d.mT, patches.mT), "bias": Explicit(d.sum(2))}


def _embedding(layer: nn.Embedding, ids: Tensor, d: Tensor) -> dict[str, Factors]:
    size = len(ids)
    ids, d = ids.reshape(size, -1), d.reshape(len(d), -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        d = _times(d, (ids != layer.padding_idx)[:, :, None])
    return {"weight": Rows(ids, d, layer.num_embeddings)}


def _layer_norm(layer: nn.LayerNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    return _last_axes(F.layer_norm(x, layer.normalized_shape, eps=layer.eps), d, layer.weight.numel())


def _rms_norm(layer: nn.RMSNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    return _last_axes(F.rms_norm(x, layer.normalized_shape, eps=layer.eps), d, layer.weight.numel())


def _group_norm(layer: nn.GroupNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    return _second_axis(F.group_norm(x, layer.num_groups, eps=layer.eps), d)


def _batch_norm(layer: BatchNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    return _second_axis(F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps), d)


def _last_axes(normalized: Tensor, d: Tensor, width: int) -> dict[str, Factors]:
    gains = _times(d, normalized).reshape(len(d), -1, width).sum(1)
    return {"weight": Explicit(gains), "bias": Explicit(d.reshape(len(d), -1, width).sum(1))}


def _second_axis(normalized: Tensor, d: Tensor) -> dict[str, Factors]:
    shape = (len(d), d.shape[1], -1)
    return {
        "weight": Explicit(_times(d, normalized).reshape(shape).sum(2)),
        "bias": Explicit(d.reshape(shape).sum(2)),
    }


def _times(d: Tensor, x: Tensor) -> Tensor:
    """``d`` ``[C B, ...]`` times ``x`` ``[B, ...]``, for each copy."""
    return (d.view(-1, *x.shape[:1], *d.shape[1:]) * x).view(d.shape)


LAYERS: dict[type[nn.Module], Callable[..., dict[str, Factors]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.Conv1d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
}
