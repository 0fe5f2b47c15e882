"""Checkpoints hold any state tree, are whole or absent, and refuse every damage."""

import json
import os
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covector.errors import CorruptionError, CovectorError, UnsupportedError
from covector.training import latest_checkpoint, read_checkpoint, write_checkpoint
from covector.training.checkpoint import checkpoint_path, prune
from covector.training.packing import pack, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees_of = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=12,
)  # fmt: skip


@given(trees_of)
def test_any_tree_survives_json(tree):
    value, tensors = pack(tree)
    back = unpack(json.loads(json.dumps(value, allow_nan=False)), tensors)
    assert back == tree
    assert repr(back) == repr(tree)  # the types too


def test_tensors_of_any_dtype_and_layout_survive(tmp_path):
    whole = torch.randn(6, 4)
    tree = {
        "views": [whole[1], whole[:, 2], whole.T, whole],
        "kinds": [torch.tensor(3), torch.zeros(0, 2), torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False])],
        "wide": torch.arange(3, dtype=torch.float64) / 3,
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        "counts": Counter({3: 2}),
        "$odd": float("-inf"),
        "a/b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
    }
    write_checkpoint(tmp_path / "state", tree)
    back = read_checkpoint(tmp_path / "state")
    flat = lambda t: t["views"] + t["kinds"] + [t["wide"], t["a/b"], t["a"]["b"]]  # noqa: E731
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(flat(tree), flat(back), strict=True))
    assert torch.equal(back["special"].view(torch.int32), tree["special"].view(torch.int32))
    assert (back["counts"], back["$odd"]) == (Counter({3: 2}), float("-inf"))
    assert isinstance(back["counts"], Counter)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", torch.eye(2).to_sparse()])
def test_what_cannot_be_saved_is_named_and_leaves_nothing(tmp_path, value):
    with pytest.raises(UnsupportedError, match="optimizer/state/0"):
        write_checkpoint(tmp_path / "state", {"optimizer": {"state": [value]}})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_and_bit_flip_is_detected(tmp_path):
    path = tmp_path / "state"
    write_checkpoint(path, {"step": 12, "x": torch.arange(5.0), "lr": 0.1})
    rng = random.Random(0)
    for name in ("state.json", "tensors.safetensors"):
        original = (path / name).read_bytes()
        for _ in range(150):
            data = bytearray(original)
            if rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (path / name).write_bytes(data)
            try:
                tree = read_checkpoint(path)
            except CorruptionError:
                continue
            # only what carries no meaning (white space) may change
            assert tree["step"] == 12
            assert tree["lr"] == 0.1
            assert torch.equal(tree["x"], torch.arange(5.0))
        (path / name).write_bytes(original)


@pytest.mark.parametrize("missing", ["state.json", "tensors.safetensors"])
def test_a_missing_file_is_a_corruption(tmp_path, missing):
    write_checkpoint(tmp_path / "state", {"x": torch.ones(1)})
    (tmp_path / "state" / missing).unlink()
    with pytest.raises(CorruptionError, match="not a whole checkpoint"):
        read_checkpoint(tmp_path / "state")


@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, at):
    path = tmp_path / "state"
    write_checkpoint(path, {"x": torch.ones(1)})

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if at == "fsync":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr("covector.training.checkpoint._replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_checkpoint(path, {"x": torch.zeros(1)})
    assert read_checkpoint(path)["x"].item() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_the_newest_is_found_and_leftovers_are_ignored_and_removed(tmp_path):
    for step in (5, 20, 100):
        write_checkpoint(checkpoint_path(tmp_path, step), {"step": step})
    leftover = tmp_path / "checkpoints" / ".step-00000200.77"
    leftover.mkdir()
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 100)
    prune(tmp_path, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000020", "step-00000100"]


def test_errors_are_typed():
    assert issubclass(CorruptionError, CovectorError)
    with pytest.raises(CorruptionError, match="tensor"):
        unpack({"$tensor": "gone"}, {})
    with pytest.raises(CorruptionError, match="later"):
        unpack({"$later": 1}, {})
