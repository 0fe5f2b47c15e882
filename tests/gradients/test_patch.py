"""Patch: the same bits everywhere, refused on the wrong base, damage detected, merge and inverse exact."""

import random

import pytest
import torch

from covector import Ledger, SeedPool, SketchPool, trees
from covector.errors import ArgumentError, CorruptionError, MismatchError
from covector.gradients.patch import Patch

POOLS = [SeedPool(1, 32), SeedPool(1, 32, "binomial"), SketchPool(2, 16)]


def base(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(7, 3, generator=generator).to(dtype), "b": torch.randn(5, generator=generator).to(dtype)}


def ledger_of(pool, seed=0):
    ledger = Ledger(pool)
    generator = torch.Generator().manual_seed(seed)
    ledger.add_(list(range(8)), torch.randint(-(1 << 28), 1 << 28, (8,), generator=generator))
    ledger.clock["client"] = 3
    return ledger


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_saved_patch_gives_the_same_bits(tmp_path, pool, dtype):
    theta0, ledger = base(dtype=dtype), ledger_of(pool)
    Patch.make(theta0, ledger, name="tiny", metadata={"task": "test", "rounds": 3}).save(tmp_path / "p")
    patch = Patch.load(tmp_path / "p")
    before = trees.digest(theta0)
    assert trees.digest(patch.apply(theta0)) == trees.digest(ledger.materialize(theta0)) == patch.result != before
    assert trees.digest(theta0) == before
    assert patch.metadata == {"task": "test", "rounds": 3}
    assert patch.info()["bytes"] == (tmp_path / "p").stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_patch_can_be_applied_in_place():
    theta0, patch = base(), Patch.make(base(), ledger_of(POOLS[0]))
    assert patch.apply(theta0, out=theta0) is theta0
    assert trees.digest(theta0) == patch.result


def test_the_wrong_base_is_refused_by_name_and_hash():
    patch = Patch.make(base(), ledger_of(POOLS[0]), name="the-base")
    other = base(seed=1)
    with pytest.raises(MismatchError) as caught:
        patch.apply(other)
    for part in ("the-base", trees.digest(base()), trees.digest(other)):
        assert part in str(caught.value)


def test_merging_is_the_sum_in_any_order_and_the_inverse_undoes_it():
    one, two = (Patch.make(base(), ledger_of(POOLS[0], seed)) for seed in (1, 2))
    both = one.merge(two)
    assert both.ledger == two.merge(one).ledger
    assert both.merge(two.inverse()).ledger == one.ledger
    assert trees.digest(both.merge(two.inverse()).apply(base())) == one.result
    assert trees.digest(one.merge(one.inverse()).apply(base())) == trees.digest(base())


def test_patches_of_different_bases_or_pools_do_not_merge():
    patch = Patch.make(base(), ledger_of(POOLS[0]))
    with pytest.raises(MismatchError, match="different bases"):
        patch.merge(Patch.make(base(1), ledger_of(POOLS[0])))
    with pytest.raises(MismatchError, match="pool"):
        patch.merge(Patch.make(base(), ledger_of(POOLS[2])))


def test_undo_returns_to_the_base_within_one_rounding_and_refuses_others():
    theta0, patch = base(), Patch.make(base(), ledger_of(POOLS[0]))
    patched = patch.apply(theta0)
    restored = patch.undo(patched)
    for name, tensor in restored.items():
        assert torch.allclose(tensor, theta0[name], rtol=2.0**-23, atol=2.0**-23)
    with pytest.raises(MismatchError, match="the patch makes"):
        patch.undo(theta0)


def test_a_result_that_differs_from_the_promise_is_reported():
    patch = Patch.make(base(), ledger_of(POOLS[0]))
    forged = Patch(patch.base, patch.ledger, patch.name, "ab" * 32)
    with pytest.raises(MismatchError, match="promises"):
        forged.apply(base())


@pytest.mark.parametrize("pool", POOLS)
def test_every_truncation_and_flipped_bit_is_refused(pool):
    data = Patch.make(base(), ledger_of(pool), "n", {"a": 1}).to_bytes()
    assert Patch.from_bytes(data).to_bytes() == data
    for length in range(len(data)):
        with pytest.raises(CorruptionError):
            Patch.from_bytes(data[:length])
    for bit in random.Random(0).sample(range(8 * len(data)), 300):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            Patch.from_bytes(bytes(changed))


def test_metadata_must_be_json():
    with pytest.raises(ArgumentError, match="JSON"):
        Patch.make(base(), ledger_of(POOLS[0]), metadata={"x": object()}).to_bytes()


def test_a_patch_of_4096_seeds_is_kilobytes():
    patch = Patch.make(base(), ledger_of(SeedPool(1, 4096)))
    assert len(patch.to_bytes()) < 17_000
