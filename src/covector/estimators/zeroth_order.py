"""ZerothOrder: the gradient from differences of losses along random directions, no backward pass.

``g = (1/n) sum_i slope_i z_i``, ``slope_i`` a probe's derivative along ``z_i``. One class, because the published
methods are choices of its parts:

==================  =========  ==============  ====  ==========
method              probe      directions      n     option
==================  =========  ==============  ====  ==========
SPSA, MeZO          central    any             1
forward gradient    jvp        any             any
LOZO                central    LowRank         1
FedKSeed's client   central    SeedPool        1
FZOO                forward    rademacher      8     normalize
KerZOO              central    any             any   kernel
==================  =========  ==============  ====  ==========
"""

from __future__ import annotations

import statistics
from typing import Any, Literal, get_args

from covector.errors import ArgumentError, CompositionError
from covector.estimators.base import Estimate, Estimator, NonFinitePolicy
from covector.estimators.directions import Directions, as_directions
from covector.estimators.probes import (
    Probe,
    check_eps,
    loss_at,
    same_randomness,
    slope_central,
    slope_forward,
    slope_jvp,
)
from covector.gradients import Gradient, Pool
from covector.objective import Batch, Objective
from covector.random import check_seed, derive, uniform

__all__ = ["ZerothOrder", "kernel_weight"]


def kernel_weight(r: float) -> float:
    """KerZOO's kernel ``K(r) = (15/4) r (5 - 7 r^2)``: ``E[r K] = 1`` and ``E[r^3 K] = 0`` for r uniform on [-1, 1].

    >>> kernel_weight(0.0), kernel_weight(1.0)
    (0.0, -7.5)
    """
    return 15 / 4 * r * (5 - 7 * r * r)


class ZerothOrder(Estimator):
    """Directional derivatives by forward passes; the parameters are never written.

    Args:
        probe: ``"central"`` (two passes a query, error of order eps^2), ``"forward"`` (one pass a query and
            one shared) or ``"jvp"`` (forward-mode, exact).
        directions: ``"rademacher"``, ``"binomial"``, ``"normal"``, a pool, or an object with ``.sample`` such as
            :class:`LowRankDirections`. It also decides the carrier of the result.
        eps: step of the differences, in the parameters' unit; a power of two makes products exact.
        queries: n, directions averaged in one estimate.
        seed: 64-bit seed; direction i of step t is a pure function of it.
        normalize: ``"fzoo"`` divides the differences by the standard deviation of the n losses instead of
            eps: the step no longer depends on the scale of the loss. Needs ``probe="forward"``, ``queries >= 2``.
        kernel: ``"kerzoo"`` steps by ``eps r`` with r uniform on [-1, 1] and weighs by :func:`kernel_weight`:
            the eps^2 bias vanishes. Needs ``probe="central"``.
        nonfinite: ``"raise"`` or ``"skip"``.

    Raises:
        ArgumentError: a value out of range.
        CompositionError: options that exclude each other.

    Source: Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
    approximation" (SPSA), 1992; Malladi et al. (MeZO), 2023, Def. 1; FZOO, 2025; KerZOO, 2025.

    >>> import torch
    >>> from covector import Objective
    >>> f = Objective.from_function(lambda p, b: (p["x"] ** 2).sum(), {"x": torch.ones(3)})
    >>> estimate = ZerothOrder(seed=1, eps=0.5)(f, None)
    >>> estimate.gradient, estimate.evaluations
    (Seeded(1 seeds, rademacher), 2)
    """

    def __init__(
        self,
        probe: Probe = "central",
        directions: str | Pool | Directions = "rademacher",
        eps: float = 2.0**-10,
        queries: int = 1,
        seed: int = 0,
        normalize: Literal["fzoo"] | None = None,
        kernel: Literal["kerzoo"] | None = None,
        nonfinite: NonFinitePolicy = "raise",
    ) -> None:
        super().__init__(nonfinite)
        if probe not in get_args(Probe):
            raise ArgumentError("probe", probe, "'central', 'forward' or 'jvp'")
        if isinstance(queries, bool) or not isinstance(queries, int) or queries < 1:
            raise ArgumentError("queries", queries, "a whole number of at least 1")
        if normalize not in (None, "fzoo"):
            raise ArgumentError("normalize", normalize, "None or 'fzoo'")
        if kernel not in (None, "kerzoo"):
            raise ArgumentError("kernel", kernel, "None or 'kerzoo'")
        if normalize == "fzoo" and (probe != "forward" or queries < 2):
            raise CompositionError(
                f"normalize='fzoo' with probe={probe!r}, queries={queries}: it divides by the standard deviation of "
                "several one-sided losses, so it needs probe='forward' and queries>=2"
            )
        if kernel == "kerzoo" and probe != "central":
            raise CompositionError(f"kernel='kerzoo' with probe={probe!r}: the kernel needs probe='central'")
        check_eps(eps)
        self.probe: Probe = probe
        self.directions = as_directions(directions)
        self.eps = float(eps)
        self.queries = queries
        self.seed = check_seed(seed)
        self.normalize = normalize
        self.kernel = kernel
        self.step = 0

    def estimate(self, objective: Objective, batch: Batch) -> Estimate:
        first = self.step * self.queries
        directions = [self.directions.sample(self.seed, first + i, objective.params) for i in range(self.queries)]
        if self.probe == "forward":
            loss, slopes, evaluations = self._forward(objective, batch, directions)
        else:
            pairs = [self._two_sided(objective, batch, z, first + i) for i, z in enumerate(directions)]
            loss, slopes = statistics.fmean(pair[0] for pair in pairs), [pair[1] for pair in pairs]
            evaluations = self.queries * 2
        self.step += 1
        terms = [z * (slope / self.queries) for z, slope in zip(directions, slopes, strict=True)]
        gradient = terms[0]
        for term in terms[1:]:
            gradient = gradient + term
        return Estimate(loss, gradient, evaluations)

    def _two_sided(self, objective: Objective, batch: Batch, z: Gradient, number: int) -> tuple[float, float]:
        if self.probe == "jvp":
            return slope_jvp(objective, batch, z)
        if self.kernel is None:
            return slope_central(objective, batch, z, self.eps)
        r = float(uniform(derive(self.seed, "kernel", number), 1)) * 2 - 1
        loss, slope = slope_central(objective, batch, z * r, self.eps)
        return loss, slope * kernel_weight(r)

    def _forward(
        self, objective: Objective, batch: Batch, directions: list[Gradient]
    ) -> tuple[float, list[float], int]:
        with same_randomness(objective) as state:
            loss = loss_at(objective, batch, state=state)
            pairs = [slope_forward(objective, batch, z, self.eps, loss, state) for z in directions]
        slopes = [slope for _, slope in pairs]
        if self.normalize == "fzoo":
            spread = statistics.pstdev(value for value, _ in pairs)
            slopes = [0.0 if spread == 0.0 else (value - loss) / spread for value, _ in pairs]
        return loss, slopes, self.queries + 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "step": self.step, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.step, self.seed = int(state["step"]), int(state["seed"])
