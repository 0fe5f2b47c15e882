"""Where the commands write: results to standard output, what accompanies them to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

__all__ = ["MARKS", "complain", "out", "status_text"]

# a word for each outcome and the color that goes with it; the word alone says it all
MARKS = {
    "holds": "green",
    "partly": "yellow",
    "does not hold": "red",
    "did not run": "bold red",
    "undecided": "cyan",
    "working": "green",
    "open": "dim",
}


def out() -> Console:
    """The console of results; made at each call, so that it follows redirected streams."""
    return Console(highlight=False)


def complain(error: Exception) -> None:
    """Print an error in red on standard error, without traceback."""
    Console(stderr=True, highlight=False).print(Text(f"Error: {error}", style="bold red"), soft_wrap=True)


def status_text(word: str) -> Text:
    """An outcome or status in its color.

    >>> str(status_text("does not hold"))
    'does not hold'
    """
    return Text(word, style=MARKS.get(word, ""), no_wrap=True)
