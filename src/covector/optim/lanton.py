"""LANTON: layers with noisier gradients take shorter steps, the noise measured in each layer's own dual norm.

For each layer ``H <- EMA(beta)(||G - G'||_*^2)`` with ``G'`` another gradient: the previous one, or one of a second
batch at the same point. With ``a = alpha / sqrt(alpha^2 + H)`` its step is multiplied by ``sqrt(a / max a)``, the
largest over the layers that share its norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError, CompositionError
from covector.optim.advance import state_dtype
from covector.optim.lmo import LMO
from covector.optim.matrices import stacks
from covector.optim.norms import MatrixNorm, Spectral, length
from covector.optim.optimizer import Params
from covector.optim.regions import TrustRegion
from covector.optim.roles import Roles
from covector.optim.slots import Bucket

__all__ = ["LANTON", "NoiseAdaptive"]

DUALS = ("lmo", "exact", "fro")


class NoiseAdaptive:
    """Slot 5: multipliers in (0, 1] by the noise of each tensor, relative to the quietest with the same norm.

    Args:
        alpha: level of noise from which on steps are shortened.
        beta: decay of the average of squared noise.
        reference: ``"previous"`` gradient (one more buffer), or ``"held"``: the one :meth:`LANTON.hold` kept.
        dual: ``"lmo"``: ``<D, T(D)>``, as exact as the norm's own direction; ``"exact"``; or ``"fro"``: spectral norms
            by the bound ``sqrt(rank) ||D||_F``, without a factorization.
        every: steps from one measurement to the next.

    Raises:
        ArgumentError: a setting out of range.

    >>> NoiseAdaptive().beta
    0.9
    """

    needs_directions = False

    def __init__(
        self, alpha: float = 1.0, beta: float = 0.9, reference: str = "previous", dual: str = "lmo", every: int = 1
    ) -> None:
        if not alpha > 0.0:
            raise ArgumentError("alpha", alpha, "a number above 0")
        if not 0.0 <= beta < 1.0:
            raise ArgumentError("beta", beta, "a number in [0, 1)")
        if reference not in ("previous", "held"):
            raise ArgumentError("reference", reference, "'previous' or 'held'")
        if dual not in DUALS:
            raise ArgumentError("dual", dual, "one of " + ", ".join(DUALS))
        if every < 1:
            raise ArgumentError("every", every, "a whole number of at least 1")
        self.alpha, self.beta, self.reference, self.dual, self.every = alpha, beta, reference, dual, every

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Measure the noise, and compare layers."""
        mine = [bucket for bucket in buckets if self in bucket.slots.scales]
        largest: dict[str, Tensor] = {}
        for bucket in mine:
            self._measure(bucket)
            for state in bucket.states:
                own = self.alpha / (self.alpha**2 + state["noise"]).sqrt()
                state["multiplier"] = own
                name = bucket.group["slots"]
                largest[name] = torch.maximum(largest.get(name, own), own)
        for bucket in mine:
            for state in bucket.states:
                state["multiplier"] = (state["multiplier"] / largest[bucket.group["slots"]]).sqrt()

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """The multipliers of this step."""
        return [state["multiplier"] for state in bucket.states]

    def _measure(self, bucket: Bucket) -> None:
        kind = state_dtype(bucket.params[0].dtype)
        due = int(bucket.t) % self.every == 0 or self.every == 1
        grads = [g.to(kind) for g in bucket.grads] if due or self.reference == "previous" else []
        for state, param in zip(bucket.states, bucket.params, strict=True):
            if "noise" not in state:
                state["noise"] = torch.zeros((), dtype=kind, device=param.device)
        known = [i for i, state in enumerate(bucket.states) if "reference_gradient" in state]
        if due and known:
            differences = [grads[i] - bucket.states[i]["reference_gradient"] for i in known]
            for i, dual in zip(known, self._duals(bucket, differences), strict=True):
                bucket.states[i]["noise"].mul_(self.beta).add_((1 - self.beta) * dual.square())
        if self.reference == "previous":
            for state, g in zip(bucket.states, grads, strict=True):
                state["reference_gradient"] = g.clone()

    def _duals(self, bucket: Bucket, differences: list[Tensor]) -> list[Tensor]:
        norm = next((m.norm for m in bucket.slots.maps if isinstance(m, LMO)), None)
        if norm is None:
            raise CompositionError("noise is measured in the norm that gives directions; these come from none")
        out = [d.new_zeros(()) for d in differences]
        for stack in stacks(differences, bucket.group):
            for i, part in zip(stack.owners, stack.split(self._dual(norm, stack.matrices)), strict=True):
                out[i] = part.sum()
        return out

    def _dual(self, norm: MatrixNorm, d: Tensor) -> Tensor:
        if self.dual == "exact":
            return norm.dual(d)
        if self.dual == "fro" and isinstance(norm, Spectral):
            return length(d) * (math.sqrt(min(d.shape[-2:])) / norm.weight(d))
        return (norm.lmo(d) * d).sum((-2, -1))


class LANTON(TrustRegion):
    """LANTON: trust-region steps whose length falls with a layer's gradient noise.

    Args:
        params: a module (norms are chosen by role), parameters, or param groups.
        lr: length of the step of the quietest layers, default 0.01.
        norm: ``"auto"``, or one norm for all.
        momentum: decay of the average of gradients.
        weight_decay: strength, decoupled.
        alpha: level of noise from which on steps are shortened.
        beta: decay of the average of squared noise.
        reference: what gradients are compared with: ``"previous"``, or ``"held"`` (see :meth:`hold`).
        dual: how noise is measured, see :class:`NoiseAdaptive`.
        every: steps from one measurement to the next.
        options: as for :class:`TrustRegion`.

    Source: "Noise-adaptive layerwise learning rates: accelerating geometry-aware optimization for deep neural network
    training" (LANTON), 2025, Algorithm 1.

    >>> optimizer = LANTON([torch.nn.Parameter(torch.zeros(2, 2))], alpha=0.5)
    >>> optimizer.defaults["momentum"]
    0.95
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 0.01,
        norm: str | MatrixNorm = "auto",
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        alpha: float = 1.0,
        beta: float = 0.9,
        reference: str = "previous",
        dual: str = "lmo",
        every: int = 1,
        **options: Any,
    ) -> None:
        rule = NoiseAdaptive(alpha, beta, reference, dual, every)
        super().__init__(params, lr, norm, momentum, weight_decay, scales=(rule, *options.pop("scales", ())), **options)

    @torch.no_grad()
    def hold(self) -> None:
        """Keep the present gradients to compare the next ones with, for ``reference="held"``.

        Call it after the backward pass of a second batch at the same point, then zero the gradients.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state.update(self.initial_state(self.slots[group["slots"]], p, group))
                    state["reference_gradient"] = p.grad.detach().to(state_dtype(p.dtype), copy=True)

    def multipliers(self) -> dict[Tensor, float]:
        """The factor of each parameter's last step."""
        return {p: float(s["multiplier"]) for p, s in self.state.items() if isinstance(s, dict) and "multiplier" in s}
