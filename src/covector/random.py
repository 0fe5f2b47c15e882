"""Counter-based random fields: the same (seed, tensor name, element index) is the same number on every device.

There is no generator state. A number is a pure function of where it stands, so that tensors can be perturbed
in any order, in slices, on any rank, by anybody who knows the 64-bit seed. The layout of the Philox counter
and the three distributions are defined in :mod:`covector.kernels.reference`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from covector import kernels
from covector.errors import ArgumentError, MismatchError
from covector.kernels import reference

__all__ = [
    "Distribution",
    "Field",
    "Stream",
    "check_distribution",
    "check_fields",
    "check_seed",
    "derive",
    "derive_seeds",
    "draw",
    "field_of",
    "integers",
    "sample_without_replacement",
    "uniform",
]

Distribution = Literal["rademacher", "binomial", "normal"]
_MASK64 = (1 << 64) - 1
_SIGN64 = 1 << 63


class Stream(enum.IntEnum):
    """What a random number is for; different purposes never share a number.

    >>> Stream.PERTURBATION.value
    0
    """

    PERTURBATION = 0
    SKETCH_SIGNS = 1
    ROUNDING = 2
    SAMPLING = 3
    SEEDS = 4
    DIRECTIONS = 5
    NOISE = 6
    BATCHES = 7


class Field(NamedTuple):
    """Where a tensor lies in the random fields: ``word`` enters the counter, ``shift`` starts its sketch buckets."""

    word: int
    shift: int


@functools.lru_cache(maxsize=65536)
def field_of(name: str) -> Field:
    """The place of the tensor called ``name``, two 32-bit words from the SHA-256 of its name.

    >>> field_of("weight") == field_of("weight"), field_of("weight") == field_of("bias")
    (True, False)
    """
    digest = hashlib.sha256(name.encode()).digest()
    return Field(int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))


def check_fields(names: Iterable[str]) -> None:
    """Refuse two tensor names that hash to the same field (one in 10^5 models of 300 tensors).

    Raises:
        MismatchError: names the two tensors; renaming one resolves it.

    >>> check_fields(["weight", "bias"])
    """
    seen: dict[int, str] = {}
    for name in names:
        other = seen.setdefault(field_of(name).word, name)
        if other != name:
            raise MismatchError(f"tensors {other!r} and {name!r} share a random field; rename one of them")


def check_distribution(distribution: str, allowed: tuple[str, ...] = get_args(Distribution)) -> None:
    """Raise :class:`~covector.errors.ArgumentError` unless ``distribution`` is one of ``allowed``.

    >>> check_distribution("rademacher")
    """
    if distribution not in allowed:
        raise ArgumentError("distribution", distribution, "one of " + ", ".join(map(repr, allowed)))


def check_seed(seed: int) -> int:
    """The seed as a signed 64-bit integer with the same bits; refuses what does not fit in 64 bits.

    >>> check_seed(2**64 - 1)
    -1
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not -_SIGN64 <= seed <= _MASK64:
        raise ArgumentError("seed", seed, "a whole number of 64 bits")
    return ((seed & _MASK64) ^ _SIGN64) - _SIGN64


def derive(seed: int, *labels: int | str) -> int:
    """A new 64-bit seed from a seed and labels: a pure function, for seeds of rounds, clients and steps.

    >>> derive(1, "client", 3) == derive(1, "client", 3) != derive(1, "client", 4)
    True
    """
    text = "\0".join([str(seed & _MASK64), *(f"{type(label).__name__}:{label}" for label in labels)])
    return check_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def _words(seed: int, stream: int, step: int, count: int, start: int = 0) -> Tensor:
    first = start // 4
    blocks = (start + count + 3) // 4 - first
    flat = reference.words(check_seed(seed), first, blocks, 0, stream, step).reshape(-1)
    return flat[start - 4 * first : start - 4 * first + count]


def derive_seeds(key: int, count: int, start: int = 0) -> Tensor:
    """Seeds ``start .. start + count - 1`` of the endless list that belongs to ``key``: int64 ``[count]``.

    >>> derive_seeds(5, 3).tolist()[2] == derive_seeds(5, 1, start=2).item()
    True
    """
    pairs = _words(key, Stream.SEEDS, 0, 2 * count, 2 * start).reshape(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 32)


def uniform(seed: int, count: int, stream: int = Stream.SAMPLING, step: int = 0, start: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) with 32 bits each: float64 ``[count]``.

    >>> bool((uniform(0, 100) < 1).all())
    True
    """
    return _words(seed, stream, step, count, start).double() * 2.0**-32


def integers(seed: int, bound: int, count: int, stream: int = Stream.SAMPLING, step: int = 0, start: int = 0) -> Tensor:
    """Integers in ``[0, bound)``, ``bound`` at most 2^31, by multiply-shift: int64 ``[count]``.

    The bias of multiply-shift is below ``bound / 2**32`` a value; it is zero for powers of two.

    >>> integers(0, 4096, 2).max().item() < 4096
    True
    """
    if not 1 <= bound <= 1 << 31:
        raise ArgumentError("bound", bound, "a whole number from 1 to 2**31")
    return (_words(seed, stream, step, count, start) * bound) >> 32


def sample_without_replacement(
    seed: int, population: int, count: int, stream: int = Stream.SAMPLING, step: int = 0
) -> list[int]:
    """``count`` different integers of ``range(population)``, sorted: the smallest random keys win.

    >>> len(set(sample_without_replacement(0, 10, 4)))
    4
    """
    if not 0 <= count <= population:
        raise ArgumentError("count", count, f"a whole number from 0 to population={population}")
    keys = _words(seed, stream, step, population)
    return sorted(torch.argsort(keys, stable=True)[:count].tolist())


def draw(
    seed: int,
    name: str,
    count: int,
    distribution: Distribution = "rademacher",
    start: int = 0,
    stream: int = Stream.PERTURBATION,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Elements ``start .. start + count - 1`` of the field of the tensor ``name``: mean 0, variance 1.

    Args:
        seed: 64-bit seed.
        name: the tensor's name, as in ``named_parameters()``.
        count: number of elements.
        distribution: ``"rademacher"`` (signs: fastest, least variance), ``"binomial"`` (popcount of 64 bits,
            exact and near Gaussian) or ``"normal"`` (Box-Muller).
        start: index of the first element in the flattened tensor.
        stream: purpose, see :class:`Stream`.
        step: a second index, for purposes that count.
        dtype: floating dtype of the result.
        device: device of the result; the numbers do not depend on it.

    Returns:
        A tensor ``[count]``.

    >>> whole = draw(7, "weight", 1000, "normal")
    >>> torch.equal(whole[500:600], draw(7, "weight", 100, "normal", start=500))
    True
    """
    check_distribution(distribution)
    out = torch.zeros(count, dtype=dtype, device=device)
    seeds = torch.tensor([check_seed(seed)])
    kernels.add_field_(
        out, seeds, torch.ones(1, dtype=torch.float64), distribution, field_of(name).word, start, int(stream), step
    )
    return out
