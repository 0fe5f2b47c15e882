"""Admission: may this reply enter the round? Pure functions of the run, the roster and what has arrived."""

from __future__ import annotations

from dataclasses import replace

import torch

from covector.federated.header import RunHeader
from covector.federated.history import History
from covector.federated.messages import Grads
from covector.federated.outcomes import Verdict
from covector.federated.payloads import DENSE, Kind, Payload
from covector.federated.screen import finite_part
from covector.gradients import SeedPool

__all__ = ["finite", "late_refusal", "misfit"]


def misfit(header: RunHeader, grads: Grads, step_units: int) -> str | None:
    """Why the payload cannot be one of this run, or ``None`` if it can.

    Args:
        header: the run.
        grads: the reply.
        step_units: scale of the reply's round, 0 if it had none.
    """
    payload = grads.payload
    count = payload.numbers.numel()
    if grads.batches == 0 and count:
        return f"{count} numbers from no batches"
    if count == 0 and (grads.batches == 0 or header.ids == "explicit"):
        return None
    if payload.kind in DENSE:
        if header.method != "sketch":
            return "coordinates in a run of scalars"
        return None if count == header.pool.size else f"{count} coordinates, the sketch has {header.pool.size}"
    if payload.kind == Kind.EXPLICIT and header.ids == "explicit":
        return _wrong_ids(header, payload)
    if payload.kind not in (Kind.SCALARS, Kind.BYTES) or header.ids != "derived":
        return f"a payload of kind {payload.kind.name} in a run with {header.ids} ids"
    if payload.kind == Kind.BYTES and not step_units:
        return "one-byte scalars in a round without a scale"
    return None if count == header.local_steps else f"{count} scalars, the run has {header.local_steps} steps"


def _wrong_ids(header: RunHeader, payload: Payload) -> str | None:
    if payload.numbers.numel() > header.local_steps:
        return f"{payload.numbers.numel()} scalars, the run has {header.local_steps} steps"
    if payload.ids is None or not isinstance(header.pool, SeedPool):
        return None
    wrong = payload.ids[(payload.ids < 0) | (payload.ids >= header.pool.size)]
    return f"seed {int(wrong[0])} is outside the pool of {header.pool.size}" if wrong.numel() else None


def late_refusal(history: History, client: int, round: int, newest: int, policy: str) -> Verdict | None:
    """Why a reply to a closed round is refused, or ``None`` if it may still be applied.

    Args:
        history: past rounds.
        client: its number.
        round: the round it answers.
        newest: the last round of this client that is applied or waits to be.
        policy: ``"refuse"`` or ``"apply"``.
    """
    if not history.remembers(round):
        return Verdict.TOO_LATE
    if history.answered(client, round):
        return Verdict.DUPLICATE
    if not history.asked(client, round):
        return Verdict.NOT_ASKED
    return Verdict.TOO_LATE if policy == "refuse" or round <= newest else None


def finite(grads: Grads) -> tuple[Grads, int]:
    """``(reply, numbers left out)``: without its non-finite numbers, or empty if nothing can be kept.

    >>> reply = Grads(1, 0, 4, 1, 0.5, Payload(Kind.SCALARS, torch.tensor([torch.inf, 1.0])))
    >>> finite(reply)[0].payload.numbers.tolist()
    [-0.0, 1.0]
    """
    payload, bad = finite_part(grads.payload)
    if payload is None:
        return replace(grads, batches=0, payload=Payload(Kind.SCALARS, torch.zeros(0))), bad
    return replace(grads, payload=payload), bad
