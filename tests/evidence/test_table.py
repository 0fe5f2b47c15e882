import re
from pathlib import Path

import pytest

from covector.errors import ArgumentError
from covector.evidence import STATIONS, papers, registry
from covector.evidence.table import find, table

# written out once more, so that a row that is lost or renamed by accident is noticed
LISTED = """
fedkseed one-byte-per-gradient quasi-conservative-score gepa forward-gradient-guesses gfs-sharpness
forward-gradient nearest-neighbour-gradient tiny-subspace bures-wasserstein-linear
gradient-regularization truncated-backprop-bilevel icgn distzo2 scalable-nested-optimization
neural-implicit-surface-evolution ademamix compositionality-f1-norm gradient-normalized-smoothness
deep-conjugate-direction oasis diffgrad smoothgrad roughness-index stochastic-rasterizer flexicubes
categorical-foundations backprop-as-functor policy-gradient-subspaces nondifferentiable-gd
sgd-dynamical-stability induced-metric-optimizer random-scaling-momentum batch-size-random-matrix
sgd-stability-coherence barron-nonlinear-pdes variational-wasserstein-flow saddle-free-newton guidedquant
fast-matrix-sqrt bilevel-implicit-bias adadagrad ift-hyperparameters large-scale-optimization-review
pi-hc-moe multiplet-networks nutime second-order-regression-eos exact-gauss-newton hessian-spectrum
overparameterization-acceleration old-optimizer-new-norm psgd-lie-group sobolev-norms-imaging
two-losses-proxy dreamguider metagradient-descent loss-landscape-sensitivity f2sa mixture-vae-manifold
adago tubal-tensor-factorization rnn-gradient-clipping hessian-fitting-lie-group generalized-smooth
amsgrad riemannian-adaptive enkg globally-smooth-manifolds online-to-nonconvex learners-languages condiff
sania modular-implicit-differentiation vito weight-conditioning direct-feedback-alignment scaledgd-lambda
incremental-matrix-sensing matrix-whitening stde operator-preconditioning-pinn non-euclidean-trust-region
convergence-handbook gradient-descent-overview reverse-derivative-ascent gam sgd-generalization-gap diff2
adagrad-stepsizes symmetric-single-index restoration-degradation dynamic-reward-weighting zoodip
affine-scaling-trust-region aegd-preconditioned single-call-extragradient noise-adaptive-layerwise-lr
uniform-lgi rcig grasswalk score-jacobian-chaining fourier-neural-operator fish-gradient-matching
matrix-calculus distributed-shampoo quasar-convex target-surrogates reverse-derivative-categories teng
learning-invariances morl-variance-reduced reinmax linearizer blind-dps feature-shift pde-lie-ssl
damped-newton maid-bilevel neural-parametric-solver
"""
SLUGS = LISTED.split()


def test_the_table_holds_the_120_papers_each_once_and_in_order():
    assert [row.slug for row in table()] == SLUGS
    assert len(set(SLUGS)) == 120
    assert [row.number for row in table()] == list(range(1, 121))


def test_titles_are_distinct_and_no_text_is_empty():
    assert len({row.title for row in table()}) == 120
    assert all(text.strip() == text and text for row in table() for text in (row.title, row.summary))


def test_every_station_is_one_of_the_library():
    assert {row.station for row in table()} <= set(STATIONS)


def test_an_arxiv_identifier_was_issued_in_the_paper_s_year():
    identifiers = [(row, row.source) for row in table() if row.source and "arXiv" in row.source]
    assert len(identifiers) > 100
    for row, source in identifiers:
        match = re.match(r"arXiv:(\d\d)(0[1-9]|1[0-2])\.\d{4,5}(, |$)", source)
        assert match is not None, source
        assert 2000 + int(match[1]) == row.year, row.slug


def test_arxiv_identifiers_are_distinct():
    urls = [row.url for row in table() if row.url]
    assert len(set(urls)) == len(urls)


def test_a_paper_without_arxiv_identifier_has_no_address():
    assert find("amsgrad").url == "https://arxiv.org/abs/1904.09237"
    assert find("gfs-sharpness").url is None


def test_no_machinery_module_has_the_name_of_a_paper_s_module():
    machinery = {"budget", "environment", "figures", "findings", "registry", "runner", "site", "table"}
    present = {path.stem for path in Path(registry.PACKAGE).glob("*.py")} - {"__init__"}
    assert machinery <= present
    assert present - machinery <= {row.module for row in table()}
    assert not machinery & {row.module for row in table()}


@pytest.mark.parametrize(("typed", "meant"), [("fed-kseed", "fedkseed"), ("one_byte_per_gradient", "one-byte")])
def test_an_unknown_slug_names_the_closest_ones(typed, meant):
    with pytest.raises(ArgumentError, match=f"did you mean '{meant}"):
        find(typed)


def test_a_slug_close_to_nothing_points_to_the_list():
    with pytest.raises(ArgumentError, match="covector papers"):
        find("zzzzzzzzzzzz")


def test_selections_by_station_partition_the_table():
    parts = [papers(station=name) for name in STATIONS]
    assert sorted(row.number for part in parts for row in part) == list(range(1, 121))


def test_selections_by_status_partition_the_table(write_paper):
    write_paper("ademamix")
    assert [row.slug for row in papers(status="working")] == ["ademamix"]
    assert len(papers(status="open")) == 119


@pytest.mark.parametrize("selection", [{"station": "optimizers"}, {"status": "done"}])
def test_an_unknown_selection_is_refused(selection):
    with pytest.raises(ArgumentError, match="expected"):
        papers(**selection)
