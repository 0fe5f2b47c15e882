"""Wrong arguments are refused by name before anything is written, with plain torch and with compiled kernels alike."""

import pytest
import torch

from covector import kernels
from covector.errors import ArgumentError, MismatchError, UnsupportedError

SEEDS, SCALES, UNITS = torch.tensor([1, 2]), torch.ones(2, dtype=torch.float64), torch.tensor([1, 2])


def flat(count=8, dtype=torch.float32):
    return torch.zeros(count, dtype=dtype)


def add(out, seeds=SEEDS, scales=SCALES, distribution="rademacher", start=0):
    kernels.add_field_(out, seeds, scales, distribution, 1, start)


def exact(out, base, units=UNITS, distribution="rademacher", start=0):
    kernels.materialize_seeded_(out, base, SEEDS, units, distribution, 3, 1, start)


def sketch(out, base, table, start=0):
    kernels.materialize_sketch_(out, base, table, 1, 1, 0, start)


def project(totals, gradient, start=0):
    kernels.project_sketch_(totals, gradient, 1, 1, 0, start)


WRONG = {
    "out with gaps": (lambda: add(torch.zeros(16)[::2]), MismatchError, "out"),
    "out of two dimensions": (lambda: add(torch.zeros(2, 4)), MismatchError, "out"),
    "out of integers": (lambda: add(flat(dtype=torch.int64)), UnsupportedError, "out"),
    "complex out": (lambda: add(flat(dtype=torch.complex64)), UnsupportedError, "out"),
    "sparse out": (lambda: add(torch.zeros(8).to_sparse()), UnsupportedError, "out"),
    "out under autograd": (lambda: add(flat().requires_grad_()), UnsupportedError, "out"),
    "a scale too few": (lambda: add(flat(), scales=SCALES[:1]), MismatchError, "scales"),
    "seeds of two dimensions": (lambda: add(flat(), SEEDS[None], SCALES[None]), MismatchError, "scales"),
    "unknown law": (lambda: add(flat(), distribution="cauchy"), ArgumentError, "distribution"),
    "negative start": (lambda: add(flat(), start=-1), ArgumentError, "start"),
    "a longer base": (lambda: exact(flat(), flat(9)), MismatchError, "base"),
    "a base of another dtype": (lambda: exact(flat(), flat(dtype=torch.bfloat16)), MismatchError, "base"),
    "a base with gaps": (lambda: exact(flat(), torch.zeros(16)[::2]), MismatchError, "base"),
    "a unit too few": (lambda: exact(flat(), flat(), UNITS[:1]), MismatchError, "units"),
    "a law without exact sums": (lambda: exact(flat(), flat(), distribution="normal"), ArgumentError, "distribution"),
    "exact with negative start": (lambda: exact(flat(), flat(), start=-1), ArgumentError, "start"),
    "an empty table": (lambda: sketch(flat(), flat(), flat(0)), ArgumentError, "table"),
    "a table of another dtype": (lambda: sketch(flat(), flat(), flat(4, torch.float64)), MismatchError, "table"),
    "a table with gaps": (lambda: sketch(flat(), flat(), torch.zeros(8)[::2]), MismatchError, "table"),
    "a base of another length": (lambda: sketch(flat(), flat(7), flat(4)), MismatchError, "base"),
    "sketch with negative start": (lambda: sketch(flat(), flat(), flat(4), -1), ArgumentError, "start"),
    "narrow totals": (lambda: project(flat(4), flat()), MismatchError, "totals"),
    "no totals": (lambda: project(flat(0, torch.float64), flat()), ArgumentError, "totals"),
    "totals with gaps": (lambda: project(torch.zeros(8, dtype=torch.float64)[::2], flat()), MismatchError, "totals"),
    "gradient with gaps": (lambda: project(flat(4, torch.float64), torch.zeros(8)[::2]), MismatchError, "gradient"),
    "project with negative start": (lambda: project(flat(4, torch.float64), flat(), -1), ArgumentError, "start"),
}


@pytest.mark.parametrize("choice", ["auto", "reference"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused_by_name(case, choice, monkeypatch):
    monkeypatch.setenv("COVECTOR_KERNELS", choice)
    call, error, name = WRONG[case]
    with pytest.raises(error, match=name):
        call()


def test_nothing_is_written_before_an_error():
    out = torch.zeros(8)
    with pytest.raises(ArgumentError):
        add(out, start=-1)
    assert out.eq(0).all()


def test_a_parameter_is_written_where_gradients_are_not_recorded():
    parameter = torch.zeros(8, requires_grad=True)
    with torch.no_grad():
        add(parameter.view(-1))
    assert parameter.detach().abs().sum() > 0


def test_autograd_notices_that_a_saved_tensor_was_overwritten():
    weight = torch.ones(8)
    loss = (torch.ones(8, requires_grad=True) * weight).sum()
    add(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_of_inference_mode_are_served():
    with torch.inference_mode():
        out = torch.zeros(8)
        add(out)
    assert out.abs().sum() > 0


def test_the_choice_of_kernels_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("COVECTOR_KERNELS", "reference")
    assert kernels.backend(flat()) == "reference"
    monkeypatch.setenv("COVECTOR_KERNELS", "auto")
    assert kernels.backend(flat()) == "cpu"
    assert kernels.backend(flat().to("meta")) == "reference"
    monkeypatch.setenv("COVECTOR_KERNELS", "fast")
    with pytest.raises(ArgumentError, match="COVECTOR_KERNELS"):
        kernels.backend(flat())


def test_kernels_that_do_not_load_give_way_to_plain_torch(monkeypatch):
    from covector.kernels import dispatch

    def broken(name):
        raise ImportError(f"{name} needs another numpy")

    monkeypatch.setattr(dispatch, "_load", broken)
    with pytest.warns(UserWarning, match="needs another numpy"):
        assert not dispatch._usable.__wrapped__("cpu", "numba")
    assert not dispatch._usable.__wrapped__("cpu", "a_package_nobody_has")


def test_implementations_get_a_signed_seed_32_bit_words_and_a_short_shift():
    base, table = torch.randn(300), torch.randn(7)
    as_given, reduced = torch.empty(300), torch.empty(300)
    kernels.materialize_sketch_(as_given, base, table, 2**64 - 5, 2**32 + 9, -9, 3, 2**32 + 1, -1)
    kernels.materialize_sketch_(reduced, base, table, -5, 9, 5, 3, 1, 2**32 - 1)
    assert torch.equal(as_given, reduced)
    assert not torch.equal(as_given, base)
