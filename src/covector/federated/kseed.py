"""FedKSeed and FedKSeed-Pro: clients take tau local zeroth-order steps along pool directions and send the scalars.

A client starts a round at ``theta = theta_0 + ledger`` and repeats tau times, with ``z`` the step's direction::

    rho = (l(theta + eps z) - l(theta - eps z)) / (2 eps)        theta <- theta - lr rho z

The server adds ``-lr sum_c omega_c rho z`` of all clients to the ledger, omega proportional to their batches.
Entries are final displacements, so that any learning-rate schedule works.

With a SeedPool the local steps are added to the live parameters; with a SketchPool they are added to a copy of
the ledger, which is as cheap there and exact.

Source: Qin et al., "Federated full-parameter tuning of billion-sized language models with communication cost
under 18 kilobytes", ICML 2024, Algorithm 1 and Sec. 4.3.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from covector.estimators import slope_central
from covector.federated.client import Client
from covector.federated.commit import Commit, Entry, Settings, factor, ids_of, step_ids, units_of
from covector.federated.header import RunHeader
from covector.federated.messages import Grads
from covector.federated.outcomes import Verdict
from covector.federated.payloads import SKIPPED, Kind, Payload
from covector.federated.screen import is_step, screened
from covector.federated.server import Server
from covector.federated.weights import fixed_point, late_weight
from covector.gradients import Gradient, Ledger, OneByte, SketchPool
from covector.random import derive

__all__ = ["KSeedClient", "KSeedServer"]


def counts_of(header: RunHeader, replies: Sequence[Grads]) -> list[int]:
    """What the weights of these replies are proportional to."""
    if header.weighting == "equal":
        return [1 for _ in replies]
    return [reply.examples if header.weighting == "examples" else reply.batches for reply in replies]


class KSeedServer(Server):
    """The server of FedKSeed and FedKSeed-Pro; see :class:`~covector.federated.server.Server` for the arguments.

    >>> from covector import SeedPool
    >>> header = RunHeader("00" * 32, SeedPool(key=1, size=64), lr=1e-3)
    >>> server = KSeedServer(header)
    >>> list(server.open_round(["a", "b"])), len(server.close_round())
    (['a', 'b'], 78)
    """

    methods = ("kseed", "kseed-pro")

    def _combine(self, settings: Settings, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> Commit:
        replies = {n: r for n, r in replies.items() if r.payload.numbers.numel()}
        payloads = self._screened(settings, replies)
        on_time, counts = counts_of(self.header, list(replies.values())), counts_of(self.header, list(late.values()))
        total = sum(on_time) + sum(counts)
        entries = [
            self._late_entry(settings, number, reply, late_weight(count, total, settings.round - origin))
            for ((number, origin), reply), count in zip(late.items(), counts, strict=True)
        ]
        entries.sort(key=lambda entry: (-entry.age, entry.client))
        weights = fixed_point(on_time)
        entries += [Entry(n, w, p) for (n, p), w in zip(payloads.items(), weights, strict=True)]
        return Commit(settings, tuple(entries), None, "00" * 32)

    def _screened(self, settings: Settings, replies: dict[int, Grads]) -> dict[int, Payload]:
        rho = {n: scalars(self.header, settings, r.payload) for n, r in replies.items()}
        payloads = {}
        for number, (values, changed) in screened(self.screen, self.history.median.value, rho).items():
            if changed.any():
                self._note(self.roster.name(number), Verdict.ABSURD, f"{int(changed.sum())} of {changed.numel()}")
            payloads[number] = rewritten(self.header, settings, replies[number].payload, values, changed)
        return payloads

    def _late_entry(self, settings: Settings, number: int, reply: Grads, weight: int) -> Entry:
        past = self.history.settings_of(reply.round, None)
        values = {number: scalars(self.header, past, reply.payload)}
        ((bounded, changed),) = screened(replace(self.screen, trim=0.0), self.history.median.value, values).values()
        payload = rewritten(self.header, past, reply.payload, bounded, changed)
        ids = torch.tensor(ids_of(self.header, past, number, payload), dtype=torch.int64)
        units = Payload(Kind.UNITS, units_of(self.header, past, payload), ids)
        return Entry(number, weight, units, settings.round - reply.round)

    def _absorb(self, commit: Commit, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> None:
        seen = []
        for entry in commit.entries:
            if entry.payload is None or entry.age:
                continue
            rho, taken = scalars(self.header, commit.settings, entry.payload), is_step(entry.payload)
            ids = ids_of(self.header, commit.settings, entry.client, entry.payload)
            self.history.observe(ids, rho, taken)
            seen.append(rho[taken])
        if seen:
            self.history.median.observe(torch.cat(seen))


def scalars(header: RunHeader, settings: Settings, payload: Payload) -> Tensor:
    """The scalars rho of a payload, float64; zero where a step was skipped."""
    if payload.kind == Kind.BYTES:
        return units_of(header, settings, payload).double() / factor(header, settings)
    return payload.numbers.double()


def rewritten(header: RunHeader, settings: Settings, payload: Payload, rho: Tensor, changed: Tensor) -> Payload:
    """The payload with new scalars where ``changed``; NaN makes a skipped step."""
    if not bool(changed.any()):
        return payload
    gone = torch.isnan(rho)
    if payload.kind != Kind.BYTES:
        return replace(payload, numbers=torch.where(changed, torch.where(gone, -0.0, rho).float(), payload.numbers))
    units = rho.nan_to_num() * factor(header, settings)
    grid = OneByte(settings.step_units).grid.double()
    codes = (torch.searchsorted(grid, units.abs(), right=True) - 1).clamp(0, 127)
    codes = torch.where(gone, SKIPPED, codes + 128 * ((units < 0) & (codes > 0)))
    return replace(payload, numbers=torch.where(changed, codes.to(torch.uint8), payload.numbers))


class KSeedClient(Client):
    """The client of FedKSeed and FedKSeed-Pro; see :class:`~covector.federated.client.Client` for the arguments.

    >>> from covector import Objective, SeedPool
    >>> model = torch.nn.Linear(2, 1)
    >>> objective = Objective(model, torch.nn.functional.mse_loss)
    >>> header = RunHeader.kseed(objective.params, SeedPool(1, 64), lr=1e-2, local_steps=5)
    >>> server, client = KSeedServer(header), KSeedClient(objective, [(torch.ones(4, 2), torch.ones(4, 1))])
    >>> server.receive("a", client.handle(server.open_round(["a"])["a"])).accepted
    True
    """

    methods = ("kseed", "kseed-pro")

    def work(self, header: RunHeader, settings: Settings, client: int) -> tuple[Payload, float]:
        assert self.ledger is not None
        ids = step_ids(header, settings, client, header.local_steps)
        code = OneByte(settings.step_units) if header.code == "byte" and settings.step_units else None
        local = self.ledger.copy() if isinstance(header.pool, SketchPool) else None
        parts, losses = [], []
        for step, identity in enumerate(ids):
            direction = header.pool.direction(identity)
            batch = self.batch(header, client, (settings.round - 1) * header.local_steps + step)
            loss, rho = slope_central(self.objective, batch, direction, header.eps)
            payload = encoded(header, settings, client, step, self._released(header, loss, rho), code)
            losses += [loss] if math.isfinite(loss) else []
            parts.append(payload)
            self._move(header, local, identity, direction, units_of(header, settings, payload))
        return _joined(header, ids, parts), statistics.fmean(losses) if losses else math.nan

    def _released(self, header: RunHeader, loss: float, rho: float) -> float | None:
        """The scalar that leaves, ``None`` for a step that is skipped."""
        usable = math.isfinite(rho) and math.isfinite(loss)
        clipped = usable and header.grad_clip > 0 and abs(rho) * 2 * header.eps > header.grad_clip
        if self.privacy is not None:
            return self.privacy.scalar(rho if usable and not clipped else 0.0)
        return rho if usable and not clipped else None

    def _move(self, header: RunHeader, local: Ledger | None, identity: int, direction: Gradient, units: Tensor) -> None:
        if not bool(units):
            return
        if local is not None:
            local.add_([identity], units)
            self.replica.walk(local)
        else:
            self.replica.moved()
            direction.add_to_(self.objective.params, scale=math.ldexp(int(units), -header.quantum))


def encoded(
    header: RunHeader, settings: Settings, client: int, step: int, rho: float | None, code: OneByte | None
) -> Payload:
    """One scalar as it is sent: ``None`` marks a skipped step."""
    if code is None:
        return Payload(Kind.SCALARS, torch.tensor([-0.0 if rho is None else rho], dtype=torch.float32))
    if rho is None:
        return Payload(Kind.BYTES, torch.tensor([SKIPPED], dtype=torch.uint8))
    units = torch.tensor([rho * factor(header, settings)], dtype=torch.float64)
    seed = derive(header.key, "rounding", settings.round, client)
    return Payload(Kind.BYTES, code.encode(units, seed, start=step))


def _joined(header: RunHeader, ids: list[int], parts: list[Payload]) -> Payload:
    numbers = torch.cat([part.numbers for part in parts])
    if header.ids == "derived":
        return Payload(parts[0].kind, numbers)
    payload = Payload(Kind.EXPLICIT, numbers, torch.tensor(ids, dtype=torch.int64))
    taken = is_step(payload)
    return Payload(Kind.EXPLICIT, numbers[taken], payload.ids[taken] if payload.ids is not None else None)
