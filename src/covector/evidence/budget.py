"""How much work an experiment may do, and where it may write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from covector.errors import ArgumentError

__all__ = ["BUDGETS", "Budget"]

T = TypeVar("T")

BUDGETS = ("smoke", "full")


@dataclass(frozen=True)
class Budget:
    """The size of one run of an experiment.

    ``smoke`` takes seconds and shows that the experiment works; ``full`` takes minutes and is what the
    evidence pages quote.

    Args:
        name: ``"smoke"`` or ``"full"``.
        seed: the seed of everything random in the experiment (default 0).
        out: folder the experiment writes its figures to (default: the current folder).

    Raises:
        ArgumentError: the name is neither budget.

    >>> Budget("smoke").choose(smoke=20, full=2000)
    20
    """

    name: str = "smoke"
    seed: int = 0
    out: Path = Path()

    def __post_init__(self) -> None:
        if self.name not in BUDGETS:
            raise ArgumentError("budget", self.name, " or ".join(repr(name) for name in BUDGETS))

    def choose(self, smoke: T, full: T) -> T:
        """Return the value that fits this budget.

        Args:
            smoke: the value for a run of seconds.
            full: the value for a run of minutes.

        Returns:
            ``smoke`` or ``full``.

        >>> Budget("full").choose(smoke=(8, 2), full=(64, 20))
        (64, 20)
        """
        return smoke if self.name == "smoke" else full

    def path(self, name: str) -> Path:
        """Return the path of a file in the output folder, which is created where it is missing.

        Args:
            name: a plain file name, such as ``"loss-by-round.svg"``.

        Returns:
            ``out / name``.

        Raises:
            ArgumentError: the name would leave the output folder.

        >>> import tempfile
        >>> Budget(out=Path(tempfile.mkdtemp())).path("loss.svg").name
        'loss.svg'
        """
        if name in ("", "..") or Path(name).name != name:
            raise ArgumentError("name", name, "a plain file name without folders")
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / name
