"""The ledger's promise: the same entries give the same bits, in any order, batching, chunking or dtype path."""

import pytest
import torch

from covector import Ledger, SeedPool, SketchPool, trees
from covector.errors import ArgumentError, CorruptionError, MismatchError, NonFiniteError, UnsupportedError

POOLS = [SeedPool(3, 64), SeedPool(3, 64, "binomial"), SketchPool(3, 64), SketchPool(3, 60)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def theta0(dtype=torch.float32):
    torch.manual_seed(0)
    return {
        "w": (torch.randn(31, 17) * 0.02).to(dtype),
        "b": torch.randn(17).to(dtype),
        "e": torch.zeros(0, dtype=dtype),
    }


def entries(pool, count=40):
    identities = pool.draw(seed=5, count=count)
    units = torch.randint(-(2**24), 2**24, (count,), generator=torch.Generator().manual_seed(1))
    return identities, units


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", POOLS)
def test_any_order_and_batching_gives_the_same_bits(pool, dtype):
    identities, units = entries(pool)
    whole = Ledger(pool)
    whole.add_(identities, units)
    shuffled = Ledger(pool)
    for i in torch.randperm(40, generator=torch.Generator().manual_seed(2)).tolist():
        shuffled.add_([identities[i]], units[i : i + 1])
    merged = Ledger(pool)
    for part in (slice(20, 40), slice(0, 20)):
        half = Ledger(pool)
        half.add_(identities[part], units[part])
        merged.merge_(half)
    digests = {trees.digest(ledger.materialize(theta0(dtype))) for ledger in (whole, shuffled, merged)}
    assert len(digests) == 1
    assert digests != {trees.digest(theta0(dtype))}


@pytest.mark.parametrize("pool", POOLS)
def test_materialized_parameters_equal_exact_rational_arithmetic(pool):
    identities, units = entries(pool)
    ledger = Ledger(pool)
    ledger.add_(identities, units)
    base = theta0()
    displacement = torch.zeros(31 * 17, dtype=torch.float64)
    for identity, unit in zip(identities, units.tolist(), strict=True):
        direction = pool.direction(identity).dense({"w": torch.zeros(31, 17, dtype=torch.float64)})["w"].view(-1)
        displacement += direction * unit  # below 2**53 times a quarter: float64 sums are exact
    expected = base["w"].view(-1) + (displacement.to(torch.float32) * 2.0**-32)
    assert torch.equal(ledger.materialize(base)["w"].view(-1), expected)


@pytest.mark.parametrize("pool", POOLS)
def test_the_base_is_only_read_and_undo_gives_it_back_bit_for_bit(pool):
    base = theta0()
    before = trees.digest(base)
    ledger = Ledger(pool)
    identities, units = entries(pool)
    ledger.add_(identities, units)
    ledger.materialize(base)
    assert trees.digest(base) == before
    ledger.add_(identities, -units)
    assert trees.digest(ledger.materialize(base)) == before


def test_materializing_in_place_equals_out_of_place():
    ledger = Ledger(SketchPool(3, 64))
    ledger.add_(*entries(ledger.pool))
    expected = trees.digest(ledger.materialize(theta0()))
    live = theta0()
    ledger.materialize(live, out=live)
    assert trees.digest(live) == expected


@pytest.mark.parametrize("pool", POOLS)
def test_bytes_round_trip_with_clock(pool):
    ledger = Ledger(pool, quantum=30)
    ledger.apply("alice", 3, *entries(pool))
    ledger.add_([pool.draw(0, 1)[0]], torch.tensor([2**40]))
    again = Ledger.from_bytes(ledger.to_bytes())
    assert again == ledger
    assert again.digest() == ledger.digest()


def test_a_sketch_snapshot_takes_16_kilobytes():
    ledger = Ledger(SketchPool(1, 4096))
    ledger.add_(*entries(ledger.pool))
    assert len(ledger.to_bytes()) < 4096 * 4 + 64


def test_each_origin_and_round_counts_once():
    ledger = Ledger(SketchPool(1, 16))
    step = [5], torch.tensor([100])
    assert ledger.apply("a", 0, *step)
    state = ledger.digest()
    assert not ledger.apply("a", 0, *step)
    assert ledger.digest() == state
    assert ledger.apply("b", 0, *step)
    assert ledger.apply("a", 4, *step)
    assert ledger.clock == {"a": 4, "b": 0}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ledger: ledger.add_([64], torch.tensor([1])), ArgumentError),
        (lambda ledger: ledger.add_([-1], torch.tensor([1])), ArgumentError),
        (lambda ledger: ledger.add_([1, 2], torch.tensor([1])), MismatchError),
        (lambda ledger: ledger.add_([1], torch.tensor([1.0])), MismatchError),
        (lambda ledger: ledger.add_([1], torch.tensor([2**62])), ArgumentError),
        (lambda ledger: ledger.add_coordinates_(torch.zeros(3, dtype=torch.int64)), MismatchError),
        (lambda ledger: ledger.units(float("inf")), NonFiniteError),
        (lambda ledger: ledger.merge_(Ledger(SeedPool(4, 64))), MismatchError),
        (lambda ledger: ledger.materialize(theta0(), {"w": torch.zeros(1)}), MismatchError),
    ],
)
def test_a_refused_entry_leaves_the_state_untouched(call, error):
    ledger = Ledger(SeedPool(3, 64))
    ledger.apply("a", 0, [1], torch.tensor([7]))
    before = ledger.to_bytes()
    with pytest.raises(error):
        call(ledger)
    assert ledger.to_bytes() == before


def test_corrupted_bytes_are_refused_before_anything_is_allocated():
    ledger = Ledger(SketchPool(1, 64))
    data = ledger.to_bytes()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(CorruptionError):
            Ledger.from_bytes(bytes(changed))
    with pytest.raises(CorruptionError, match="size 64"):
        Ledger.from_bytes(data, largest=32)


def test_laws_without_exact_sums_are_refused():
    with pytest.raises(UnsupportedError, match="binomial"):
        SeedPool(1, 16, "normal")


def test_drawn_probabilities_are_respected():
    pool = SeedPool(1, 4)
    drawn = torch.bincount(torch.tensor(pool.draw(7, 20_000, torch.tensor([0.5, 0.25, 0.25, 0.0]))), minlength=4)
    assert drawn[3] == 0
    assert (drawn.double() / 20_000 - torch.tensor([0.5, 0.25, 0.25, 0.0])).abs().max() < 0.02
