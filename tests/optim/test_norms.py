"""Norms: duality, the table of linear minimization oracles, and the norm that layers make together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, MismatchError
from covector.optim import norms, roles
from covector.optim.layer_norms import Laid, Modular, auto_norms, layouts
from covector.optim.norms import RMS2RMS, BiasRMS, ColNorm, Frobenius, MaxAbs, RowNorm, Spectral

EXACT = "svd"
ALL = [
    Frobenius(),
    BiasRMS(),
    MaxAbs(),
    MaxAbs(fan=True),
    Spectral(EXACT),
    RMS2RMS(EXACT),
    RMS2RMS(EXACT, taps=4),
    *(
        kind(p=p, scale=scale)
        for kind in (RowNorm, ColNorm)
        for p in (1.0, 1.5, 2.0, 3.0, math.inf)
        for scale in ("rms", "none")
    ),
]
every = pytest.mark.parametrize("norm", ALL, ids=str)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (3, 4, 4)], ids=str)
def test_the_oracle_has_norm_one_and_reaches_the_dual_norm(norm: norms.Norm, shape: tuple[int, ...]) -> None:
    g = draw(*shape)
    t = norm.lmo(g)
    torch.testing.assert_close(norm.norm(t), torch.ones(shape[:-2], dtype=g.dtype))
    torch.testing.assert_close((g * t).sum((-2, -1)), norm.dual(g))


@every
def test_no_direction_of_norm_one_gains_more_than_the_dual_norm(norm: norms.Norm) -> None:
    g, others = draw(4, 6), draw(200, 4, 6, seed=1)
    inner = (g * others).sum((-2, -1)) / norm.norm(others)
    assert float(inner.max()) <= float(norm.dual(g)) * (1 + 1e-12)


@every
def test_steepest_descent_minimizes_the_regularized_linear_model(norm: norms.Norm) -> None:
    g, others = draw(4, 6), draw(300, 4, 6, seed=2)

    def model(d: torch.Tensor) -> torch.Tensor:
        return (g * d).sum((-2, -1)) + 0.5 * norm.norm(d) ** 2

    best = -norm.dualize(g)
    torch.testing.assert_close(model(best), -0.5 * norm.dual(g) ** 2)
    assert bool((model(others) >= model(best)).all())
    assert bool((model(best + 1e-3 * others) >= model(best) - 1e-12).all())


@every
def test_a_zero_gradient_has_a_zero_direction(norm: norms.Norm) -> None:
    assert not norm.lmo(torch.zeros(2, 3, 4)).any()


@every
def test_a_vector_is_a_matrix_of_one_row(norm: norms.Norm) -> None:
    g = draw(6)
    torch.testing.assert_close(norm.lmo(g), norm.lmo(g[None])[0])
    torch.testing.assert_close(norm.dual(g), norm.dual(g[None]))


def test_the_rms_norm_bounds_what_a_layer_does_to_the_root_mean_square() -> None:
    w, x = draw(12, 3), draw(3, 1000, seed=1)
    gains = (w @ x).square().mean(0).sqrt() / x.square().mean(0).sqrt()
    bound = float(RMS2RMS(EXACT).norm(w))
    assert 0.95 * bound < float(gains.max()) <= bound * (1 + 1e-12)


def test_the_column_norm_is_what_one_token_can_be() -> None:
    w = draw(6, 9)
    torch.testing.assert_close(ColNorm().norm(w), w.square().mean(0).sqrt().max())


@pytest.mark.parametrize("options", [{"p": 0.5}, {"p": float("nan")}, {"scale": "max"}], ids=str)
def test_what_is_no_norm_is_refused(options: dict[str, object]) -> None:
    for kind in (RowNorm, ColNorm):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            kind(**options)


def test_the_norm_of_layers_is_dual_to_the_sum_of_their_dual_norms() -> None:
    both = Modular({"a": Spectral(EXACT), "b": MaxAbs()}, weights={"b": 3.0})
    g = {"a": draw(4, 5), "b": draw(7)}
    t = both.lmo(g)
    torch.testing.assert_close(both.norm(t), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(sum((g[k] * t[k]).sum() for k in g), both.dual(g))
    step = both.dualize(g)
    for name in g:
        torch.testing.assert_close(step[name], both.dual(g) * t[name])
    with pytest.raises(MismatchError, match="'c'"):
        both.dual({"c": g["a"]})
    with pytest.raises(MismatchError, match="'d'"):
        Modular({"a": MaxAbs()}, weights={"d": 1.0})


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.conv = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose1d(5, 2, 3)
        self.cell = nn.LSTM(6, 7)
        self.hidden = nn.Linear(7, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)


def test_norms_are_chosen_by_role() -> None:
    found = auto_norms(Zoo(), method=EXACT)
    assert found["embedding.weight"] == Laid(ColNorm(), 1, True)
    assert found["conv.weight"] == Laid(RMS2RMS(EXACT, taps=9))
    assert found["up.weight"] == Laid(RMS2RMS(EXACT, taps=3), 1, True)
    assert found["cell.weight_ih_l0"] == Laid(RMS2RMS(EXACT), 4, False)
    assert found["hidden.weight"] == RMS2RMS(EXACT)
    assert found["head.weight"] == RowNorm()
    assert found["norm.weight"] == found["hidden.bias"] == BiasRMS()


def test_norms_follow_overridden_roles() -> None:
    model = Zoo()
    assert auto_norms(roles(model, override={"head.weight": "hidden"}))["head.weight"] == RMS2RMS()


def test_the_norms_of_all_layouts_are_dual() -> None:
    model = Zoo().double()
    for name, norm in auto_norms(model, method=EXACT).items():
        g = draw(*dict(model.named_parameters())[name].shape)
        t = norm.lmo(g)
        assert t.shape == g.shape
        torch.testing.assert_close((g * t).sum(), norm.dual(g).sum())
        torch.testing.assert_close(norm.norm(t).amax(), torch.ones((), dtype=g.dtype))
        torch.testing.assert_close(norm.dualize(g), norm.dual(g).sum() * t)


def test_a_stacked_and_a_turned_parameter_are_the_matrices_they_hold() -> None:
    gates = draw(12, 5)
    stacked = Laid(Spectral(EXACT), blocks=4).lmo(gates)
    apart = torch.cat([Spectral(EXACT).lmo(gate) for gate in gates.chunk(4)])
    torch.testing.assert_close(stacked, apart)
    turned = draw(5, 3, 4)  # inputs, outputs, kernel
    torch.testing.assert_close(
        Laid(Spectral(EXACT), transposed=True).lmo(turned).transpose(0, 1).flatten(1),
        Spectral(EXACT).lmo(turned.transpose(0, 1).flatten(1)),
    )


def test_parameters_without_a_module_are_told_apart_by_their_dimensions() -> None:
    found = layouts([nn.Parameter(torch.zeros(2, 3)), ("b", nn.Parameter(torch.zeros(3)))])
    assert [(layout.name, type(layout.norm)) for layout in found] == [("0", RMS2RMS), ("b", BiasRMS)]
