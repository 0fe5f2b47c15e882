"""Callback: what may look on at a training run, log it or stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covector.training.run import Run

__all__ = ["Callback"]


class Callback:
    """Base of callbacks; override what is needed.

    >>> class Print(Callback):
    ...     def on_step(self, run, record):
    ...         print(record["step"], record["loss"])
    """

    def on_start(self, run: Run) -> None:
        """Before the first step, after resuming: ``run.step`` tells from where."""

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        """After each step; ``record`` has ``step``, ``loss``, ``lr``, ``seconds``, and ``norm`` if it is clipped.

        Numbers added to ``record`` in every step go into the metrics and the history.
        """

    def on_evaluate(self, run: Run, record: dict[str, float]) -> None:
        """After each evaluation; ``record`` has ``step`` and what ``evaluate`` returned."""

    def on_end(self, run: Run) -> None:
        """At the end, after an error too; ``run.history.stopped`` tells why."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should hold of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
