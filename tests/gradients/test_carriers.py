"""Every carrier: linear, equal to its dense form, and through bytes and back."""

import pytest
import torch

from covector import Dense, Gradient, LowRankDirections, Seeded, Sketch, trees
from covector.errors import ArgumentError, CompositionError, CorruptionError, MismatchError
from covector.gradients import encode, project

LIKE = {"w": torch.zeros(7, 9), "b": torch.zeros(9), "e": torch.zeros(0)}


def carriers(seed=0):
    torch.manual_seed(seed)
    return {
        "dense": Dense({name: torch.randn_like(t) for name, t in LIKE.items()}),
        "seeded": Seeded([1, 2, 3], torch.randn(3)),
        "binomial": Seeded([4, 5], torch.randn(2), "binomial"),
        "normal": Seeded([4, 5], torch.randn(2), "normal"),
        "sketch": Sketch(9, torch.randn(16)),
        "lowrank": LowRankDirections(rank=2, refresh=1).sample(3 + seed, 0, LIKE),
    }


KINDS = list(carriers())


def close(a, b, tolerance=1e-5):
    return all(torch.allclose(a[name], b[name], rtol=tolerance, atol=tolerance) for name in a)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_and_scaling_commute_with_writing_out(kind):
    a, b = carriers(0)[kind], carriers(1)[kind]
    left = (2.0 * a - b / 4).dense(LIKE)
    right = {name: 2.0 * t - b.dense(LIKE)[name] / 4 for name, t in a.dense(LIKE).items()}
    assert close(left, right)
    assert type(2.0 * a - b) is type(a)


@pytest.mark.parametrize("kind", KINDS)
def test_add_slice_equals_the_slice_of_the_dense_form(kind):
    gradient = carriers()[kind]
    whole = gradient.dense(LIKE)["w"].view(-1)
    part = torch.ones(23)
    gradient.add_slice_(part, "w", start=11, scale=-3.0)
    assert torch.allclose(part, 1 - 3.0 * whole[11:34], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_add_to_works_on_transposed_parameters(kind):
    gradient = carriers()[kind]
    transposed = {**trees.clone(LIKE), "w": torch.zeros(9, 7).T}
    gradient.add_to_(transposed, 0.5)
    assert close(transposed, {name: 0.5 * t for name, t in gradient.dense(LIKE).items()})


@pytest.mark.parametrize("kind", KINDS)
def test_dot_and_norm_equal_those_of_the_dense_form(kind):
    gradient, other = carriers()[kind], carriers(1)["dense"]
    dense = gradient.dense(LIKE)
    assert gradient.dot(other) == pytest.approx(trees.dot(dense, other.params), rel=1e-4)
    assert gradient.norm(LIKE) == pytest.approx(trees.norm(dense), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_round_trip(kind):
    gradient = carriers()[kind]
    assert Gradient.from_bytes(gradient.to_bytes("fp64")) == gradient or kind in ("dense", "sketch", "lowrank")
    assert close(Gradient.from_bytes(gradient.to_bytes("fp32")).dense(LIKE), gradient.dense(LIKE), 1e-6)
    assert close(Gradient.from_bytes(gradient.to_bytes("bf16")).dense(LIKE), gradient.dense(LIKE), 2e-2)
    assert gradient.nbytes == len(gradient.to_bytes())


def test_one_byte_gradients_are_unbiased_and_take_a_byte_a_number():
    sketch = Sketch(1, torch.linspace(-3, 3, 64))
    mean = torch.stack([Gradient.from_bytes(encode(sketch, "byte", seed=s)).x for s in range(600)]).double().mean(0)
    # a step of the grid is 9 %, so one draw is off by at most 4.6 % of the value in the root mean square
    assert ((mean - sketch.x).abs() <= 5 * 0.046 * sketch.x.abs() / 600**0.5 + 1e-6).all()
    assert len(sketch.to_bytes("byte")) < 64 + 48


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_and_every_flipped_bit_is_detected(kind):
    data = carriers()[kind].to_bytes()
    for cut in range(0, len(data), max(1, len(data) // 50)):
        with pytest.raises(CorruptionError):
            Gradient.from_bytes(data[:cut])
    for bit in range(0, len(data) * 8, max(1, len(data) // 20)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(CorruptionError):
            Gradient.from_bytes(bytes(changed))


def test_sums_of_different_carriers_are_refused():
    each = carriers()
    with pytest.raises(CompositionError, match="carriers differ"):
        each["dense"] + each["sketch"]
    with pytest.raises(CompositionError, match="one distribution"):
        each["seeded"] + each["normal"]
    with pytest.raises(CompositionError, match="SketchPool"):
        each["sketch"] + Sketch(10, torch.zeros(16))


def test_norm_without_shapes_names_the_missing_argument():
    with pytest.raises(ArgumentError, match="like"):
        Seeded([1], [1.0]).norm()


def test_seeds_and_coefficients_must_match():
    with pytest.raises(MismatchError, match="2 coefficients for 1 seeds"):
        Seeded([1], [1.0, 2.0])


def test_sketch_projection_is_the_transpose_of_its_spread():
    torch.manual_seed(0)
    dense = {name: torch.randn_like(t) for name, t in LIKE.items()}
    x = torch.randn(16, dtype=torch.float64)
    assert float(project(dense, 9, 16) @ x) == pytest.approx(Sketch(9, x).dot(dense), rel=1e-6)


def test_sketch_of_a_gradient_is_unbiased_over_keys():
    torch.manual_seed(0)
    dense = {"w": torch.randn(5, 4)}
    n, total = 800, torch.zeros(5, 4, dtype=torch.float64)
    for key in range(n):
        total += Sketch(key, project(dense, key, 8)).dense(dense)["w"].double()
    # each element has the variance of the other elements of its bucket, at most |g|^2
    assert ((total / n - dense["w"]).abs() < 5 * trees.norm(dense) / n**0.5).all()
