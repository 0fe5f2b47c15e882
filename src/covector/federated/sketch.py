"""Federated descent in a sketch: theta = theta_0 + S x, and everything that travels is about the N numbers x.

A client may have backpropagation, and then sends ``S^T g``, the exact derivative by x; or only forward passes,
and then sends tau slopes along derived directions, from which the server forms ``(1/tau) sum_i rho_i h_i``. Both
estimate the same vector, so both may take part in one run. The server averages, takes a step of its optimizer
on N numbers, rounds it to ledger units and broadcasts the integers.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from covector.errors import CompositionError, MismatchError, NonFiniteError
from covector.estimators import Backprop, Estimator, PoolDirections, ZerothOrder
from covector.federated.averaging import combined, displacement, trimmed_mean
from covector.federated.batches import Batches
from covector.federated.client import Client
from covector.federated.commit import Commit, Entry, Settings, factor, step_ids
from covector.federated.header import RunHeader
from covector.federated.kseed import counts_of, rewritten, scalars
from covector.federated.messages import Grads
from covector.federated.outcomes import Verdict
from covector.federated.payloads import DENSE, SKIPPED, Kind, Payload, coordinates, read_coordinates
from covector.federated.privacy import GaussianNoise
from covector.federated.replica import Replica
from covector.federated.screen import RunningMedian, is_step, screened
from covector.federated.server import Server
from covector.federated.steps import Moments, direction
from covector.federated.weights import fixed_point
from covector.gradients import OneByte, Sketch, SketchPool
from covector.objective import Objective
from covector.random import derive

__all__ = ["SketchClient", "SketchServer"]


class SketchServer(Server):
    """The server of a sketch run; see :class:`~covector.federated.server.Server` for the arguments.

    >>> import torch
    >>> from covector import SketchPool
    >>> header = RunHeader.sketch({"w": torch.zeros(3)}, SketchPool(1, 64), lr=1e-2)
    >>> SketchServer(header).open_round(["a"]).keys()
    dict_keys(['a'])
    """

    methods = ("sketch",)

    def __init__(self, header: RunHeader, *args: object, **options: object) -> None:
        self.moments = Moments.zero(header.pool.size)
        self.norms = RunningMedian()
        self._next: tuple[int, Moments] | None = None
        super().__init__(header, *args, **options)  # type: ignore[arg-type]

    def _combine(self, settings: Settings, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> Commit:
        weights, gradient = self._average(settings, replies, late)
        entries = tuple(Entry(number, weight, None) for number, weight in weights.items())
        if gradient is None:
            return Commit(settings, entries, None, "00" * 32)
        step, moments = direction(self.header, self.moments, gradient)
        self._next = settings.round, moments
        return Commit(settings, entries, displacement(self.header, settings, step), "00" * 32)

    def _absorb(self, commit: Commit, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> None:
        settings = commit.settings
        if self._next is not None and self._next[0] == settings.round:
            self.moments = self._next[1]
        self._next = None
        sent = [r.payload for r in replies.values() if r.payload.numbers.numel()]
        slopes = [scalars(self.header, settings, p)[is_step(p)] for p in sent if p.kind not in DENSE]
        if slopes:
            self.history.median.observe(torch.cat(slopes))
        norms = [read_coordinates(p).norm() for p in sent if p.kind in DENSE]
        if norms:
            self.norms.observe(torch.stack(norms))

    def _average(
        self, settings: Settings, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]
    ) -> tuple[dict[int, int], Tensor | None]:
        """``(weight of each client, averaged gradient)``."""
        on_time = {n: r for n, r in replies.items() if r.payload.numbers.numel()}
        weights = dict(zip(on_time, fixed_point(counts_of(self.header, list(on_time.values()))), strict=True))
        vectors = self._vectors(settings, on_time)
        terms = [(weights[n], vector) for n, vector in vectors.items()]
        for (number, origin), reply in late.items():
            past = self.history.settings_of(origin, None)
            ((_, vector),) = self._vectors(past, {number: reply}).items()
            share = (1 << 16) // max(1, len(on_time) + len(late))
            terms.append((share >> (settings.round - origin), vector))
        total = sum(weight for weight, _ in terms)
        if total == 0:
            return weights, None
        if self.screen.trim and len(terms) > 2:
            return weights, trimmed_mean(torch.stack([vector for _, vector in terms]), self.screen.trim)
        average = torch.zeros(self.header.pool.size, dtype=torch.float64)
        for weight, vector in terms:
            average += vector * weight
        return weights, average / total

    def _vectors(self, settings: Settings, replies: dict[int, Grads]) -> dict[int, Tensor]:
        """Each client's estimate of the derivative by x, screened."""
        header, vectors = self.header, {}
        slopes = {n: scalars(header, settings, r.payload) for n, r in replies.items() if r.payload.kind not in DENSE}
        bounded = screened(self.screen, self.history.median.value, slopes)
        norms = {n: read_coordinates(r.payload).norm() for n, r in replies.items() if r.payload.kind in DENSE}
        limit = self._norm_limit(list(norms.values()))
        for number, reply in replies.items():
            if number in slopes:
                values, changed = bounded[number]
                count = int(changed.sum())
                payload = rewritten(header, settings, reply.payload, values, changed)
                vectors[number] = combined(header, settings, number, payload)
            else:
                factor_ = min(1.0, limit / max(float(norms[number]), 1e-300))
                count = int(factor_ < 1.0)
                factor_ = 0.0 if count and self.screen.policy == "drop" else factor_
                vectors[number] = read_coordinates(reply.payload) * factor_
            if count:
                self._note(self.roster.name(number), Verdict.ABSURD, f"{count} of {reply.payload.numbers.numel()}")
        return vectors

    def _norm_limit(self, norms: list[Tensor]) -> float:
        if self.screen.bound is None or not norms:
            return math.inf
        usual = self.norms.value or float(torch.stack(norms).median())
        return self.screen.bound * usual if usual > 0 else math.inf


class SketchClient(Client):
    """The client of a sketch run: any estimator over the run's pool.

    Args:
        objective: the loss and the live parameters, or a :class:`Replica` shared with other clients.
        batches: this client's data; may be empty.
        estimator: ``Backprop(carrier=pool)``, which sends N coordinates, or ``ZerothOrder(directions=pool)``,
            which sends the run's ``local_steps`` slopes (a multiple of its ``queries``); its seed and step are
            set by the protocol.
        header: the run, if known.
        examples: number of examples behind the batches.
        accumulate: batches a ``Backprop`` client averages in a round.
        privacy: noise added before anything is sent.

    Raises:
        CompositionError: an estimator that works on no sketch.

    >>> from covector import Objective, SketchPool
    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> pool = SketchPool(key=1, size=64)
    >>> server = SketchServer(RunHeader.sketch(objective.params, pool, lr=1e-2))
    >>> client = SketchClient(objective, [(torch.ones(4, 2), torch.ones(4, 1))], Backprop(carrier=pool))
    >>> server.receive("a", client.handle(server.open_round(["a"])["a"])).accepted
    True
    """

    methods = ("sketch",)

    def __init__(
        self,
        objective: Objective | Replica,
        batches: Batches,
        estimator: Estimator,
        header: RunHeader | None = None,
        examples: int = 0,
        accumulate: int = 1,
        privacy: GaussianNoise | None = None,
    ) -> None:
        self.estimator = estimator
        self.accumulate = accumulate
        self.pool = pool_of(estimator)
        super().__init__(objective, batches, header, examples, privacy)

    def _checked(self, header: RunHeader | None) -> RunHeader:
        checked = super()._checked(header)
        if self.pool != checked.pool:
            raise MismatchError(f"the estimator works on {self.pool}, the run on {checked.pool}; use the run's pool")
        if isinstance(self.estimator, ZerothOrder) and checked.local_steps % self.estimator.queries:
            raise CompositionError(
                f"queries={self.estimator.queries} does not divide the run's local_steps={checked.local_steps}"
            )
        return checked

    def work(self, header: RunHeader, settings: Settings, client: int) -> tuple[Payload, float]:
        if isinstance(self.estimator, ZerothOrder):
            return self._slopes(header, settings, client, self.estimator)
        total, losses = torch.zeros(header.pool.size, dtype=torch.float64), []
        for i in range(self.accumulate):
            batch = self.batch(header, client, (settings.round - 1) * self.accumulate + i)
            try:
                estimate = self.estimator(self.objective, batch)
            except NonFiniteError:
                continue
            assert isinstance(estimate.gradient, Sketch)
            if not estimate.skipped:
                total += estimate.gradient.x
                losses.append(estimate.loss)
        average = total / max(1, len(losses))
        released = average if self.privacy is None else self.privacy.vector(average)
        seed = derive(header.key, "rounding", settings.round, client)
        return coordinates(released, header.code, seed), statistics.fmean(losses) if losses else math.nan

    def _slopes(
        self, header: RunHeader, settings: Settings, client: int, estimator: ZerothOrder
    ) -> tuple[Payload, float]:
        queries, seed = estimator.queries, derive(header.key, "steps", settings.round, client)
        estimator.load_state_dict({"skipped": estimator.skipped, "seed": seed, "step": 0})
        ids = step_ids(header, settings, client, header.local_steps)
        slopes: list[float | None] = []
        losses: list[float] = []
        for i in range(header.local_steps // queries):
            batch = self.batch(header, client, (settings.round - 1) * (header.local_steps // queries) + i)
            try:
                estimate = estimator(self.objective, batch)
            except NonFiniteError:
                estimate = None
            if estimate is None or estimate.skipped:
                slopes += [None] * queries
                continue
            assert isinstance(estimate.gradient, Sketch)
            directions = [self.pool.signs(k).double() for k in ids[i * queries : (i + 1) * queries]]
            slopes += slopes_of(estimate.gradient.x.double(), torch.stack(directions)).tolist()
            losses.append(estimate.loss)
        mean = statistics.fmean(losses) if losses else math.nan
        return self._encoded(header, settings, client, slopes), mean

    def _encoded(self, header: RunHeader, settings: Settings, client: int, slopes: list[float | None]) -> Payload:
        if self.privacy is not None:
            slopes = [self.privacy.scalar(slope or 0.0) for slope in slopes]
        skipped = torch.tensor([slope is None for slope in slopes])
        values = torch.tensor([slope or 0.0 for slope in slopes], dtype=torch.float64)
        if header.code != "byte" or not settings.step_units:
            return Payload(Kind.SCALARS, torch.where(skipped, -0.0, values).float())
        seed = derive(header.key, "rounding", settings.round, client)
        codes = OneByte(settings.step_units).encode(values * factor(header, settings), seed)
        return Payload(Kind.BYTES, torch.where(skipped, SKIPPED, codes).to(torch.uint8))


def pool_of(estimator: Estimator) -> SketchPool:
    """The sketch pool an estimator works on.

    Raises:
        CompositionError: it works on none.
    """
    pool: object = None
    if isinstance(estimator, Backprop):
        pool = estimator.carrier
    elif isinstance(estimator, ZerothOrder) and isinstance(estimator.directions, PoolDirections):
        pool = estimator.directions.pool
    if not isinstance(pool, SketchPool):
        raise CompositionError(
            f"{type(estimator).__name__} works on no sketch; use Backprop(carrier=pool) or ZerothOrder(directions=pool)"
        )
    return pool


def slopes_of(x: Tensor, directions: Tensor) -> Tensor:
    """The slopes ``s`` of ``x = (1/n) sum_i s_i h_i``, by the normal equations of the n directions ``[n, N]``.

    >>> slopes_of(torch.tensor([2.0, -2.0]), torch.tensor([[1.0, -1.0]])).round(decimals=4)
    tensor([2.])
    """
    solution: Tensor = torch.linalg.lstsq(directions.T, x[:, None]).solution
    return solution[:, 0] * len(directions)
