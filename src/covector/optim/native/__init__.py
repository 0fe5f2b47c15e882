"""Elementwise rules as one compiled pass over memory on the CPU: numba, no compiler on the user's machine."""

from covector.optim.native.passes import run

__all__ = ["run"]
