"""The ``covector`` command.

Importing this package costs nothing; the shell, and behind it each command, is imported when it is needed.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the ``covector`` command with the arguments of this process, and exit with its code."""
    from covector.cli.shell import app

    app(prog_name="covector")
