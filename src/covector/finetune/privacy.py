"""Differential privacy of a run: the noise a client adds, how often it released something, and what that adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from covector.federated import GaussianNoise, epsilon
from covector.finetune.settings import Settings

if TYPE_CHECKING:
    from covector.finetune.progress import RoundRecord

__all__ = ["account", "noise_of", "releases_a_round"]


class Clipping(GaussianNoise):
    """Clips to C and adds nothing: it bounds what a client can do, and protects nothing.

    >>> Clipping(2.0).scalar(5.0)
    2.0
    """

    def __init__(self, clip: float) -> None:
        super().__init__(clip, sigma=1.0)
        self.sigma = 0.0


def noise_of(settings: Settings) -> GaussianNoise | None:
    """What a client of this run does to its numbers before they leave, ``None`` for nothing.

    >>> noise_of(Settings()) is None, noise_of(Settings(dp_noise=2.0, dp_clip=0.5)).sigma
    (True, 2.0)
    """
    if settings.dp_clip == 0.0:
        return None
    return GaussianNoise(settings.dp_clip, settings.dp_noise) if settings.dp_noise else Clipping(settings.dp_clip)


def releases_a_round(settings: Settings) -> int:
    """Noised values a client releases in a round: one vector for ``sketch``, else a scalar a step.

    >>> releases_a_round(Settings(method="kseed", local_steps=8)), releases_a_round(Settings(method="sketch"))
    (8, 1)
    """
    return 1 if settings.method == "sketch" else settings.local_steps


def account(settings: Settings, records: Iterable[RoundRecord], resumed: int = 0) -> dict[str, Any] | None:
    """Epsilon at ``dp_delta`` of the client that was asked most often.

    Args:
        settings: noise multiplier, clip, delta and method.
        records: the rounds of the run.
        resumed: how often the run was taken up again: a round that was open then may have been answered twice,
            with fresh noise, so each counts as one more.

    Returns:
        ``epsilon`` (``None`` without noise: nothing is promised), ``delta``, ``noise``, ``clip`` and ``releases``;
        ``None`` if the run is not private.

    Raises:
        MissingExtraError: ``dp-accounting`` is not installed.

    >>> account(Settings(), []) is None
    True
    """
    if settings.dp_clip == 0.0:
        return None
    asked = Counter(client for record in records for client in record.down)
    releases = (max(asked.values(), default=0) + resumed) * releases_a_round(settings)
    spent = epsilon(settings.dp_noise, releases, settings.dp_delta) if settings.dp_noise else None
    return {
        "epsilon": spent,
        "delta": settings.dp_delta,
        "noise": settings.dp_noise,
        "clip": settings.dp_clip,
        "releases": releases,
    }
