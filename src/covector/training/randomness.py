"""The global generators that dropout and data pipelines draw from: their state, taken and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["capture_random", "restore_random", "unchanged_random"]


def capture_random() -> dict[str, Any]:
    """The states of the generators of torch (CPU and CUDA), Python and NumPy, as tensors and numbers.

    >>> state = capture_random(); before = torch.rand(1); restore_random(state); bool(torch.rand(1) == before)
    True
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    state = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype("int64")),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random(state: dict[str, Any]) -> None:
    """Put back what :func:`capture_random` took."""
    torch.set_rng_state(state["torch"])
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    legacy = state["numpy"]
    key = legacy["key"].numpy().astype("uint32")
    np.random.set_state(("MT19937", key, legacy["position"], legacy["has_gauss"], legacy["gauss"]))
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def unchanged_random() -> Iterator[None]:
    """A context whose inside may draw random numbers without changing those drawn after it.

    >>> torch.manual_seed(0) is not None
    True
    >>> with unchanged_random(): inside = torch.rand(1)
    >>> bool(torch.rand(1) == inside)
    True
    """
    state = capture_random()
    try:
        yield
    finally:
        restore_random(state)
