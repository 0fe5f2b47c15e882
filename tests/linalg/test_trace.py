"""Trace estimators are unbiased with the variance that theory gives, exact where they must be, and know their error."""

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.linalg import DenseOperator, diagonal, frobenius2, trace

N = 60
G = torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MATRIX = G + G.mT
Q = torch.linalg.qr(G)[0]
DECAYING = (Q * (0.7 ** torch.arange(N, dtype=torch.float64))) @ Q.mT
METHODS = ["hutchinson", "hutch++", "xtrace"]


def test_signs_are_exact_for_a_diagonal():
    op = DenseOperator(torch.diag(torch.arange(N, dtype=torch.float64)))
    assert trace(op, products=3) == (N * (N - 1) / 2, 0.0)
    assert torch.equal(diagonal(op, 3).value, torch.arange(N, dtype=torch.float64))


def test_hutchinson_has_the_known_variance():
    found = torch.tensor([trace(DenseOperator(MATRIX), 20, seed=seed).value for seed in range(300)])
    variance = 2 * float((MATRIX - torch.diag(MATRIX.diagonal())).square().sum()) / 20
    assert float(found.mean()) == pytest.approx(float(MATRIX.trace()), abs=4 * (variance / 300) ** 0.5)
    assert float(found.var()) == pytest.approx(variance, rel=0.3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("matrix", [MATRIX, DECAYING, G], ids=["flat", "decaying", "not-symmetric"])
def test_estimates_are_unbiased_and_their_error_bars_honest(method, matrix):
    found = [trace(DenseOperator(matrix), 24, method, seed=seed) for seed in range(200)]
    values = torch.tensor([each.value for each in found], dtype=torch.float64)
    exact = float(matrix.trace())
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / 200**0.5
    claimed = torch.tensor([each.error for each in found]).square().mean().sqrt()
    assert 0.5 < float(claimed / values.std()) < 2.0


def test_where_eigenvalues_decay_xtrace_beats_hutch_plus_plus_beats_hutchinson():
    def rms(method):
        off = [trace(DenseOperator(DECAYING), 30, method, seed=s).value - float(DECAYING.trace()) for s in range(40)]
        return float(torch.tensor(off).square().mean().sqrt())

    assert rms("xtrace") < 0.5 * rms("hutch++")
    assert rms("hutch++") < 0.5 * rms("hutchinson")


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_low_rank_is_exact(method, dtype):
    matrix = (G[:, :4] @ torch.diag(torch.tensor([1.0, -2.0, 3.0, 4.0], dtype=torch.float64)) @ G[:, :4].mT).to(dtype)
    found = trace(DenseOperator(matrix, symmetric=True), 18, method)
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-5 if dtype == torch.float32 else 1e-12)


def test_more_products_than_dimensions_are_exact():
    for method in ("hutch++", "xtrace"):
        assert trace(DenseOperator(MATRIX[:5, :5]), 64, method).value == pytest.approx(float(MATRIX[:5, :5].trace()))


def test_frobenius_and_diagonal_cover_the_truth():
    op = DenseOperator(MATRIX)
    found = frobenius2(op, 400)
    assert abs(found.value - float(MATRIX.square().sum())) < 4 * found.error
    value, error = diagonal(op, 400)
    assert float(((value - MATRIX.diagonal()).abs() <= 2 * error).double().mean()) > 0.85
    expected = (MATRIX.square().sum(1) - MATRIX.diagonal().square()) / 400
    torch.testing.assert_close(error.square().mean(), expected.mean(), rtol=0.1, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_products_are_as_many_as_asked(method):
    op = DenseOperator(MATRIX)
    trace(op, 30, method)
    assert op.products == 30


def test_the_answer_does_not_depend_on_how_products_are_chunked(monkeypatch):
    import importlib

    module = importlib.import_module("covector.linalg.trace")

    before = trace(DenseOperator(MATRIX), 30)
    monkeypatch.setattr(module, "CHUNK", 7)
    assert trace(DenseOperator(MATRIX), 30).value == pytest.approx(before.value, rel=1e-12)


def test_what_has_no_trace_is_refused():
    with pytest.raises(MismatchError, match="square"):
        trace(DenseOperator(torch.zeros(2, 3)))
    with pytest.raises(ArgumentError, match="at least 4 for xtrace"):
        trace(DenseOperator(torch.eye(3)), 3, "xtrace")
    with pytest.raises(ArgumentError, match="method"):
        trace(DenseOperator(torch.eye(3)), 3, "exact")
