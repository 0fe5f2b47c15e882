"""What a fit converges to, what it keeps, and what it does not see: PSGD's theory, on small problems."""

import math

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.optim import HessianFitter
from covector.optim.fit_geometry import GEOMETRIES, geometry_named, turn
from covector.optim.fit_kronecker import KroneckerFit
from covector.optim.fit_low_rank import LowRankFit
from covector.optim.fit_noise import FitNoise
from covector.optim.norm_bound import norm_bound

every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES)
DOUBLE = torch.float64


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=DOUBLE)


def hessian(n, condition=10.0, seed=0, indefinite=False):
    vectors = torch.linalg.qr(draws(seed)(n, n))[0]
    values = torch.logspace(0, -math.log10(condition), n, dtype=DOUBLE)
    if indefinite:
        values = values * torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat(n)[:n]
    return vectors * values @ vectors.mT


def feed(fitter, h, count, seed=1):
    normal = draws(seed)
    for _ in range(count):
        v = normal(len(h))
        fitter.update(v, h @ v)
    return fitter


@every_geometry
def test_clean_pairs_lead_to_the_inverse_of_the_hessian_s_absolute_value(geometry):
    h = hessian(5, condition=4.0)
    fitter = feed(HessianFitter("dense", geometry, lr=0.5), h, 900)
    report = fitter.fit_report(h)
    assert report.error < 1e-5
    assert report.eigenvalues == pytest.approx((1.0, 1.0), abs=1e-5)
    assert report.asymmetry < 1e-7
    v = draws(5)(5)
    torch.testing.assert_close(fitter.apply_inv(fitter.apply(v)), v, rtol=1e-9, atol=1e-9)
    assert fitter.error(v, h @ v) < 1e-5


@pytest.mark.parametrize("geometry", ["GL", "Q0.5EQ1.5", "QUAD"])
def test_it_converges_to_rounding(geometry):
    h = hessian(4, condition=3.0)
    assert feed(HessianFitter("dense", geometry, lr=0.5), h, 2000).fit_report(h).error < 1e-13


def test_of_an_indefinite_hessian_it_finds_the_absolute_value_but_no_pair_fits_it_exactly():
    h = hessian(4, condition=3.0, indefinite=True)
    fitter = HessianFitter(lr=0.1)
    normal = draws(1)
    for step in range(2000):
        fitter.lr = max(0.3 / (1 + step / 20), 0.003)
        v = normal(4)
        fitter.update(v, h @ v)
    assert fitter.fit_report(h).error < 0.15
    assert fitter.error(v, h @ v) > 0.5


def test_a_low_rank_fit_finds_a_hessian_of_its_own_form():
    normal = draws(2)
    d, u, v = 1.0 + normal(8).square() / 4, 0.3 * normal(8, 1), 0.3 * normal(8, 1)
    q = (torch.eye(8, dtype=DOUBLE) + u @ v.mT) * d
    h = torch.linalg.inv(q.mT @ q)
    fitter = feed(HessianFitter("lra", lr=0.3, rank=2), h, 2500)
    assert fitter.fit_report(h).error < 0.03


@every_geometry
def test_the_step_is_the_gradient_of_the_criterion(geometry):
    """d/dt c(P_t) along the step equals its prediction from E, and is negative: it descends."""
    form, normal = geometry_named(geometry), draws(3)
    n, dt = 4, 1e-6
    q = torch.eye(n, dtype=DOUBLE) + 0.2 * normal(n, n)
    q = q.triu() if form.triangular else q
    if form.name in ("QUAD", "QUAD4P", "PRO4P", "Q0.5EQ1.5"):
        q = (q + q.mT) / 2
    v, h = normal(1, n), normal(1, n)
    fit = KroneckerFit(form, max_skew=math.inf, smoothing=0.0)
    states = {"q0": q[None], "l0": torch.zeros(1, dtype=DOUBLE)}

    def criterion(s):
        return float((h * fit.apply(s, h)).sum() + (v * fit.apply_inverse(s, v)).sum())

    moved = fit.update(states, v, h, dt, FitNoise(0))
    slope = (criterion(moved) - criterion(states)) / dt
    assert slope < 0
    if form.name in ("EQ", "GL"):
        a = q @ h[0]
        b = torch.linalg.solve(q.mT, v[0])
        e = torch.outer(a, a) - torch.outer(b, b)
        direction = e.triu() if form.triangular else e
        # c(exp(-t D) Q) falls at the rate 2 <E, D>, over the smoothness
        expected = -2 * float((e * direction).sum()) / float(a @ a + b @ b)
        assert slope == pytest.approx(expected, rel=1e-4)


def test_the_gradient_on_the_group_is_that_of_autograd():
    normal = draws(4)
    q, v, h = torch.eye(3, dtype=DOUBLE) + 0.3 * normal(3, 3), normal(3), normal(3)

    def criterion(e):
        moved = q + e @ q
        return (moved @ h).square().sum() + torch.linalg.solve(moved.mT, v).square().sum()

    found = torch.autograd.functional.jacobian(criterion, torch.zeros(3, 3, dtype=DOUBLE))
    a, b = q @ h, torch.linalg.solve(q.mT, v)
    torch.testing.assert_close(found, 2 * (torch.outer(a, a) - torch.outer(b, b)))


def test_the_criterion_is_strongly_convex_along_the_group():
    """E c(Q exp(tE)): its second derivative is positive wherever E is not skew, and at the optimum as well."""
    normal = draws(6)
    second_moment = hessian(4) @ hessian(4).mT
    for _ in range(20):
        q, e = torch.eye(4, dtype=DOUBLE) + 0.3 * normal(4, 4), normal(4, 4)
        e = e / e.norm()

        def value(t, q=q, e=e):
            moved = q @ torch.linalg.matrix_exp(t * e)
            p = moved.mT @ moved
            return (p @ second_moment).trace() + torch.linalg.inv(p).trace()

        t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
        (first,) = torch.autograd.grad(value(t), t, create_graph=True)
        assert float(torch.autograd.grad(first, t)[0]) > 0


@pytest.mark.parametrize("geometry", ["EQ", "Q0.5EQ1.5", "QUAD"])
def test_whitening_finds_the_inverse_root_of_the_second_moment(geometry):
    root = hessian(4, condition=5.0)
    gradients = 2.0 * root  # in columns; their mean outer product is root^2
    fitter = HessianFitter("dense", geometry)
    for step in range(1600):
        fitter.lr = max(0.3 / (1 + step / 40), 0.003)
        fitter.update(None, gradients[:, step % 4])
    torch.testing.assert_close(fitter.matrix() @ root, torch.eye(4, dtype=DOUBLE), rtol=0.0, atol=0.12)


@pytest.mark.parametrize("geometry", ["EQ", "QEQ", "Q0.5EQ1.5", "QUAD", "QEP"])
def test_whitened_gradients_of_a_kronecker_moment_are_white(geometry):
    units = torch.eye(6, dtype=DOUBLE).view(6, 2, 3) * 6**0.5
    gradients = hessian(2, 3.0) @ units @ hessian(3, 3.0, seed=9)
    fitter = HessianFitter("kron", geometry, max_skew=math.inf)
    for step in range(1200):
        fitter.lr = max(0.3 / (1 + step / 40), 0.005)
        fitter.update(None, gradients[step % 6])
    white = torch.stack([fitter.apply(g).flatten() for g in gradients])
    torch.testing.assert_close(white.mT @ white / 6, torch.eye(6, dtype=DOUBLE), rtol=0.0, atol=0.25)


def test_factors_of_a_group_stay_in_the_group():
    h = hessian(5)
    q = feed(HessianFitter("dense", "EQ", lr=0.5), h, 300).states["q0"][0]
    assert torch.equal(q, q.triu())
    assert bool((q.diagonal() > 0).all())
    for geometry in ("QUAD", "QUAD4P"):
        q = feed(HessianFitter("dense", geometry, lr=0.5), h, 300).states["q0"][0]
        assert torch.equal(q, q.mT)
        assert float(torch.linalg.eigvalsh(q).min()) > 0


def test_turning_keeps_p_and_brings_q_closer_to_symmetry():
    normal = draws(10)
    q = torch.eye(5, dtype=DOUBLE) + 0.05 * normal(5, 5)
    turned = turn(q[None], normal(5, 5))[0]
    torch.testing.assert_close(turned.mT @ turned, q.mT @ q, rtol=0.0, atol=1e-3)
    assert float((turned - turned.mT).norm()) < 0.7 * float((q - q.mT).norm())


def test_the_norm_bound_is_below_the_norm_and_close_to_it():
    normal = draws(11)
    batch = normal(3, 40, 40)
    for matrices in (batch @ batch.mT, batch - batch.mT):
        exact = torch.linalg.matrix_norm(matrices, 2)
        found = norm_bound(matrices, normal(32, 40))
        assert bool((found <= exact * (1 + 1e-12)).all())
        assert bool((found >= 0.9 * exact).all())
    assert norm_bound(torch.zeros(1, 4, 4), torch.ones(2, 4)).tolist() == [0.0]


def test_rank_zero_is_the_diagonal_method_written_out():
    normal, d, smooth = draws(12), torch.ones(5, dtype=DOUBLE), 0.0
    curvature = torch.tensor([0.5, 0.7, 1.0, 1.4, 2.0], dtype=DOUBLE)
    zero, diagonal = HessianFitter("lra", lr=0.5, rank=0), HessianFitter("diag", lr=0.5)
    for _ in range(500):
        v = normal(5)
        for fitter in (zero, diagonal):
            fitter.update(v, curvature * v)
        seen, expected = (d * curvature * v).square(), (v / d).square()
        size = float(seen.max() + expected.max())
        smooth = max(0.9 * smooth + 0.1 * size, size)
        d = d - 0.5 / smooth * (seen - expected) * d
    torch.testing.assert_close(zero.states["d"], d, rtol=1e-12, atol=0.0)
    assert torch.equal(zero.states["d"], diagonal.states["d"])
    torch.testing.assert_close(d.square() * curvature, torch.ones(5, dtype=DOUBLE), rtol=1e-3, atol=0.0)


def test_a_diagonal_factor_of_one_axis_is_the_diagonal_method_up_to_the_normalizer():
    """With one element there is only one normalizer."""
    normal = draws(13)
    kron, diagonal = HessianFitter("kron", "EQ", lr=0.3), HessianFitter("diag", lr=0.3)
    for _ in range(50):
        v = normal(1)
        kron.update(v, 3 * v)
        diagonal.update(v, 3 * v)
    torch.testing.assert_close(kron.matrix(), diagonal.matrix(), rtol=1e-12, atol=0.0)
    assert kron.states["q0"].shape == (1, 1)


def test_coordinates_do_not_matter():
    """theta' = A theta with Q0' = Q0 A^T: the same Qh and Q^{-T} v, so the same P, seen in other coordinates."""
    normal = draws(14)
    h, a = hessian(4), torch.eye(4, dtype=DOUBLE) + 0.3 * draws(15)(4, 4).triu()
    for geometry, change in (("GL", a), ("EQ", a.mT), ("EQ", torch.diag(a.diagonal()))):
        fit = KroneckerFit(geometry_named(geometry), max_skew=math.inf)
        inverse = torch.linalg.inv(change)
        plain = {"q0": torch.eye(4, dtype=DOUBLE)[None], "l0": torch.zeros(1, dtype=DOUBLE)}
        mapped = {"q0": change.mT[None], "l0": torch.zeros(1, dtype=DOUBLE)}
        for _ in range(100):
            v = normal(4)
            product = h @ v
            plain = fit.update(plain, v[None], product[None], 0.5, FitNoise(0))
            # H' = A^{-T} H A^{-1}
            mapped = fit.update(mapped, (change @ v)[None], (inverse.mT @ product)[None], 0.5, FitNoise(0))
        torch.testing.assert_close(mapped["q0"][0], plain["q0"][0] @ change.mT, rtol=1e-9, atol=1e-9)


def test_balancing_and_rebalancing_change_no_product():
    normal = draws(16)
    fit = KroneckerFit(geometry_named("EQ"), max_skew=math.inf)
    states = fit.begin(normal(2, 3, 4), 1.0)
    states["q0"] = states["q0"] * 100
    x = normal(2, 3, 4)
    balanced = fit.balance(states)
    torch.testing.assert_close(fit.apply(balanced, x), fit.apply(states, x))
    sizes = [balanced[name].abs().flatten(1).amax(1) for name in ("q0", "q1")]
    torch.testing.assert_close(sizes[0], sizes[1])

    low, x = LowRankFit(rank=2), normal(6)
    states = low.begin(x, 1.0, FitNoise(0))
    states["u"] = states["u"] * 3
    torch.testing.assert_close(low.apply(low._rebalanced(states), x), low.apply(states, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("structure", ["dense", "kron", "lra", "diag"])
def test_the_inverse_undoes_it_and_a_state_resumes(structure):
    normal = draws(17)
    fitter = HessianFitter(structure, lr=0.3, rank=3, damping=1e-6, scale=None)
    pairs = [(normal(3, 4, 2), normal(3, 4, 2)) for _ in range(10)]
    for v, h in pairs[:5]:
        fitter.update(v, h)
    torch.testing.assert_close(fitter.apply_inv(fitter.apply(h)), h)
    again = HessianFitter(structure, lr=0.3, rank=3, damping=1e-6, scale=None)
    again.load_state_dict(fitter.state_dict())
    for v, h in pairs[5:]:
        fitter.update(v, h)
        again.update(v, h)
    assert torch.equal(fitter.matrix(), again.matrix())
    assert fitter.updates == again.updates == 10


def test_before_the_first_pair_it_is_a_multiple_of_the_identity():
    fitter = HessianFitter(scale=3.0)
    assert fitter.apply(torch.ones(2)).tolist() == [9.0, 9.0]
    assert fitter.apply_inv(torch.full((2,), 9.0)).tolist() == [1.0, 1.0]
    with pytest.raises(ArgumentError, match="updates=0"):
        fitter.matrix()


@pytest.mark.parametrize(
    "options",
    [
        {"structure": "sparse"}, {"geometry": "SGD"}, {"lr": 0.0}, {"lr": 3.0}, {"smoothing": 1.0}, {"damping": -1.0},
        {"scale": 0.0}, {"structure": "lra", "rank": -1}, {"structure": "lra", "geometry": "EQ"}, {"max_size": -1},
        {"max_skew": math.nan}, {"balance_every": 0},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_are_named(options):
    with pytest.raises(ArgumentError, match=list(options)[-1]):
        HessianFitter(**options)


def test_a_tensor_of_another_shape_is_refused_and_nothing_changes():
    fitter = HessianFitter()
    fitter.update(torch.ones(2), torch.ones(2))
    before = fitter.matrix()
    for call in (
        lambda: fitter.update(torch.ones(3), torch.ones(3)),
        lambda: fitter.update(torch.ones(2), torch.ones(3)),
        lambda: fitter.apply(torch.ones(3)),
    ):
        with pytest.raises(MismatchError, match=r"\(3,\)"):
            call()
    assert torch.equal(before, fitter.matrix())
    assert fitter.updates == 1
