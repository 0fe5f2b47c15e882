import pytest
import torch

from covector import trees
from covector.errors import MismatchError, UnsupportedError


def params(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(3, 4, generator=generator), "b": torch.randn(4, generator=generator)}


def test_dot_is_the_sum_over_the_flattened_vectors():
    a, b = params(0), params(1)
    expected = float(trees.flatten(a).double() @ trees.flatten(b).double())
    assert trees.dot(a, b) == pytest.approx(expected, rel=1e-12)


def test_unflatten_gives_views_and_inverts_flatten():
    a = params()
    flat = trees.flatten(a)
    views = trees.unflatten(flat, a)
    assert all(torch.equal(views[name], a[name]) for name in a)
    views["b"].zero_()
    assert flat[-4:].abs().sum() == 0


def test_unflatten_refuses_a_wrong_length():
    with pytest.raises(MismatchError, match=r"\(16,\)"):
        trees.unflatten(torch.zeros(15), params())


def test_axpy_adds_in_place():
    y, x = params(0), params(1)
    expected = y["w"] + 0.5 * x["w"]
    address = y["w"].data_ptr()
    trees.axpy_(y, x, 0.5)
    assert torch.allclose(y["w"], expected)
    assert y["w"].data_ptr() == address


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["w"].view(-1)[5:6].copy_(torch.nextafter(p["w"].view(-1)[5:6], torch.tensor([9.0]))),
        lambda p: p.update(w=p["w"].reshape(4, 3)),
        lambda p: p.update(w=p["w"].double()),
        lambda p: p.update(v=p.pop("w")),
    ],
)
def test_digest_sees_every_change(change):
    before = trees.digest(params())
    changed = params()
    change(changed)
    assert trees.digest(changed) != before
    assert trees.digest(params()) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_digest_reads_every_dtype(dtype):
    assert len(trees.digest({"w": torch.ones(3, dtype=dtype), "empty": torch.zeros(0, dtype=dtype)})) == 64


def test_different_names_are_refused_by_name():
    with pytest.raises(MismatchError, match="bias"):
        trees.dot({"w": torch.ones(1)}, {"bias": torch.ones(1)})


def test_sparse_and_complex_tensors_are_refused():
    with pytest.raises(UnsupportedError, match="sparse"):
        trees.check_dense_real({"w": torch.eye(2).to_sparse()})
    with pytest.raises(UnsupportedError, match="complex64"):
        trees.check_dense_real({"w": torch.zeros(2, dtype=torch.complex64)})
