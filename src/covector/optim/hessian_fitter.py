"""A preconditioner fitted to a stream of pairs: PSGD's, by itself.

``P`` minimizes the mean of ``h^T P h + v^T P^{-1} v``, which is ``P = E[h h^T]^{-1/2}`` for v with the identity as
second moment: ``|H|^{-1}`` for pairs ``(v, Hv)``, and ``E[g g^T]^{-1/2}`` where h is a gradient g that v is independent
of. A pair asks for ``P h = v``, the secant equation, which all pairs of a positive H without noise fulfill at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.optim.fit_geometry import geometry_named
from covector.optim.fit_kronecker import KroneckerFit
from covector.optim.fit_low_rank import LowRankFit
from covector.optim.fit_noise import FitNoise
from covector.random import check_seed

__all__ = ["FitReport", "HessianFitter", "check_fit", "make_fit"]

STRUCTURES = ("kron", "dense", "lra", "diag")
DEFAULT_GEOMETRY = "Q0.5EQ1.5"


def make_fit(
    structure: str, geometry: str | None, rank: int, max_size: float, max_skew: float, smoothing: float
) -> KroneckerFit | LowRankFit:
    """The mechanism behind a structure.

    Raises:
        ArgumentError: an unknown structure or geometry, a number out of range, or a geometry where there is no choice.

    >>> make_fit("diag", None, 10, math.inf, 1.0, 0.9).rank
    0
    """
    if structure not in STRUCTURES:
        raise ArgumentError("structure", structure, "one of " + ", ".join(STRUCTURES))
    if not 0.0 <= smoothing < 1.0:
        raise ArgumentError("smoothing", smoothing, "a number in [0, 1)")
    if rank < 0:
        raise ArgumentError("rank", rank, "a whole number of at least 0")
    for name, value in (("max_size", max_size), ("max_skew", max_skew)):
        if not value >= 0:
            raise ArgumentError(name, value, "a number of at least 0")
    if structure in ("lra", "diag"):
        if geometry is not None:
            raise ArgumentError("geometry", geometry, f"None with structure={structure!r}, which has one of its own")
        return LowRankFit(rank if structure == "lra" else 0, smoothing)
    chosen = geometry_named(DEFAULT_GEOMETRY if geometry is None else geometry)
    if structure == "dense":
        return KroneckerFit(chosen, math.inf, math.inf, smoothing)
    return KroneckerFit(chosen, max_size, max_skew, smoothing)


def check_fit(lr: float, damping: float, scale: float | None) -> None:
    """Refuse numbers that a fit cannot work with.

    >>> check_fit(0.1, 0.0, None)
    """
    if not 0.0 < lr <= 2.0:
        raise ArgumentError("fit_lr", lr, "a number in (0, 2]")
    if not 0.0 <= damping < math.inf:
        raise ArgumentError("damping", damping, "a finite number of at least 0")
    if scale is not None and not 0.0 < scale < math.inf:
        raise ArgumentError("scale", scale, "a finite number above 0, or None")


def blurred(h: Tensor, damping: float, noise: FitNoise) -> Tensor:
    """h with noise of ``damping`` and of its own rounding, so that no direction is without any; h if damping is 0."""
    if damping == 0.0:
        return h
    level = h.abs().mul_(torch.finfo(h.dtype).eps).add_(damping)
    return h.addcmul(level, noise.normal(h.shape, h))


def first_scale(h: Tensor, v: Tensor | None, damping: float) -> float:
    """``(mean h^4 + damping^4)^(-1/8) (mean v^2)^(1/4)``: about the Q that a first pair asks for.

    >>> round(first_scale(torch.full((3,), 16.0), None, 0.0), 4)
    0.25
    """
    fourth = float(h.double().square().square().mean()) + max(damping, 1e-36) ** 4
    spread = 1.0 if v is None else float(v.double().square().mean())
    return float(fourth**-0.125 * spread**0.25)


@dataclass(frozen=True)
class FitReport:
    """How well a fit matches a Hessian that is known.

    Args:
        error: ``||P |H| - I||`` (Frobenius).
        eigenvalues: least and largest eigenvalue of ``P |H|``; 1 and 1 for a perfect fit.
        asymmetry: ``||P - P^T|| / ||P||``.
    """

    error: float
    eigenvalues: tuple[float, float]
    asymmetry: float


class HessianFitter:
    """Fits a preconditioner to pairs ``(v, h)``, or to gradients that it is to whiten.

    Args:
        structure: ``"dense"``; ``"kron"``, a factor for each axis; ``"lra"``, a diagonal and a product of low rank;
            ``"diag"``.
        geometry: how factors move: ``"EQ"``, ``"GL"``, ``"QEQ"``, ``"Q0.5EQ1.5"`` (the default), ``"QUAD"``, ``"QEP"``,
            ``"QUAD4P"`` or ``"PRO4P"``; for dense and Kronecker factors.
        lr: of the fit; 0.5 to 1 for pairs without noise, 0.1 or less with noise.
        scale: what Q starts at, times the identity; None: by the first pair.
        damping: noise added to h, so that directions which h never has stay bounded.
        smoothing: of the running smoothness, from which the rate follows; 0 takes each pair's own.
        rank: of ``"lra"``.
        max_size: longest axis that has a dense factor in ``"kron"``.
        max_skew: an axis has a dense factor in ``"kron"`` only if its square is at most this times the elements.
        balance_every: updates from one balancing of Kronecker factors to the next.
        seed: of what is drawn.

    Attributes:
        updates: pairs seen so far.

    Raises:
        ArgumentError: a value out of range.

    Source: Li, "Stochastic Hessian fitting on Lie groups", 2024; Pooladzandi and Li, "Curvature-informed SGD via
    general purpose Lie-group preconditioners", 2024.

    >>> hessian = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    >>> fitter = HessianFitter(lr=0.5)
    >>> generator = torch.Generator().manual_seed(0)
    >>> for _ in range(200):
    ...     v = torch.randn(2, dtype=torch.float64, generator=generator)
    ...     fitter.update(v, hessian @ v)
    >>> fitter.apply(torch.ones(2, dtype=torch.float64)).round(decimals=3)
    tensor([1.0000, 0.2500], dtype=torch.float64)
    """

    def __init__(
        self,
        structure: str = "dense",
        geometry: str | None = None,
        lr: float = 0.1,
        *,
        scale: float | None = 1.0,
        damping: float = 0.0,
        smoothing: float = 0.9,
        rank: int = 10,
        max_size: float = math.inf,
        max_skew: float = 1.0,
        balance_every: int = 100,
        seed: int = 0,
    ) -> None:
        self.fit = make_fit(structure, geometry, rank, max_size, max_skew, smoothing)
        check_fit(lr, damping, scale)
        check_seed(seed)
        if balance_every < 1:
            raise ArgumentError("balance_every", balance_every, "a whole number of at least 1")
        self.structure, self.lr, self.scale, self.damping = structure, lr, scale, damping
        self.balance_every, self.seed, self.updates = balance_every, seed, 0
        self.states: dict[str, Tensor] = {}
        self._shape: torch.Size | None = None

    @torch.no_grad()
    def update(self, v: Tensor | None, h: Tensor) -> None:
        """Take a pair in: a direction and the Hessian's product with it.

        Args:
            v: the direction, with the identity as second moment; None where h is a gradient to be whitened.
            h: the product, or the gradient; of any shape, always the same.

        Raises:
            MismatchError: another shape than before, or v and h of two shapes.
        """
        if v is not None and v.shape != h.shape:
            raise MismatchError(f"v has shape {tuple(v.shape)}, h {tuple(h.shape)}: they must be the same")
        if self._shape is not None:
            self._check(h)
        noise, self._shape = FitNoise(self.seed, self.updates), h.shape
        h = blurred(h, self.damping, noise)
        if not self.states:
            scale = first_scale(h, v, self.damping) if self.scale is None else self.scale
            self.states = self._begin(h, scale, noise)
        self.updates += 1
        flat = None if v is None else self._in(v)
        if isinstance(self.fit, LowRankFit):
            self.states = self.fit.update(self.states, flat, self._in(h), self.lr, noise, self.updates)
            return
        self.states = self.fit.update(self.states, flat, self._in(h), self.lr, noise)
        if self.fit.geometry.conjugated or self.updates % self.balance_every == 0:
            self.states = self.fit.balance(self.states)

    @torch.no_grad()
    def apply(self, g: Tensor) -> Tensor:
        """``P g``; g itself, scaled, before the first update."""
        return self._through(g, inverse=False)

    @torch.no_grad()
    def apply_inv(self, g: Tensor) -> Tensor:
        """``P^{-1} g``, the Hessian's absolute value times g, by solves."""
        return self._through(g, inverse=True)

    def error(self, v: Tensor, h: Tensor) -> float:
        """``||P h - v|| / ||v||``: how far the pair is from the secant equation."""
        return float(torch.linalg.vector_norm(self.apply(h) - v) / torch.linalg.vector_norm(v))

    def matrix(self) -> Tensor:
        """P written out: ``[n, n]``, in the order of the flattened elements; for small n.

        Raises:
            ArgumentError: nothing was fitted yet.
        """
        if self._shape is None:
            raise ArgumentError("updates", 0, "at least one update before P can be written out")
        some = next(iter(self.states.values()))
        rows = torch.eye(self._shape.numel(), dtype=some.dtype, device=some.device)
        return torch.stack([self.apply(row.view(self._shape)).flatten() for row in rows], 1)

    def fit_report(self, hessian: Tensor) -> FitReport:
        """Compare P with the inverse of a known Hessian's absolute value.

        Args:
            hessian: symmetric, ``[n, n]``.

        >>> fitter = HessianFitter(scale=0.5)
        >>> fitter.update(torch.ones(2), torch.full((2,), 4.0))
        >>> fitter.fit_report(torch.eye(2)).eigenvalues[1] < 0.5
        True
        """
        values, vectors = torch.linalg.eigh(hessian)
        absolute = vectors * values.abs() @ vectors.mT
        p = self.matrix()
        product = p @ absolute
        real = torch.linalg.eigvals(product).real
        one = torch.eye(len(p), dtype=p.dtype, device=p.device)
        return FitReport(
            float(torch.linalg.matrix_norm(product - one)),
            (float(real.min()), float(real.max())),
            float(torch.linalg.matrix_norm(p - p.mT) / torch.linalg.matrix_norm(p)),
        )

    def state_dict(self) -> dict[str, Any]:
        """What a later fitter with the same arguments goes on from."""
        shape = None if self._shape is None else list(self._shape)
        return {"updates": self.updates, "shape": shape, "states": {k: x.clone() for k, x in self.states.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.updates, self.states = state["updates"], {name: x.clone() for name, x in state["states"].items()}
        self._shape = None if state["shape"] is None else torch.Size(state["shape"])

    def _begin(self, h: Tensor, scale: float, noise: FitNoise) -> dict[str, Tensor]:
        if isinstance(self.fit, LowRankFit):
            return self.fit.begin(self._in(h), scale, noise)
        return self.fit.begin(self._in(h), scale)

    def _through(self, g: Tensor, inverse: bool) -> Tensor:
        if not self.states:
            scale = 1.0 if self.scale is None else self.scale**2
            return g / scale if inverse else g * scale
        self._check(g)
        apply = self.fit.apply_inverse if inverse else self.fit.apply
        return apply(self.states, self._in(g)).view(g.shape)

    def _in(self, x: Tensor) -> Tensor:
        """A vector for a low-rank fit; a batch of one for a Kronecker product."""
        if isinstance(self.fit, LowRankFit):
            return x.reshape(-1)
        return x.reshape(1, -1) if self.structure == "dense" or x.ndim == 0 else x.unsqueeze(0)

    def _check(self, x: Tensor) -> None:
        if x.shape != self._shape:
            expected = tuple(self._shape or ())
            raise MismatchError(f"a tensor of shape {tuple(x.shape)}; the fit is of shape {expected}")
