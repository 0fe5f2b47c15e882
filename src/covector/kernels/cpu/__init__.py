"""The kernels for CPU tensors: numba loops around LLVM vector steps, compiled at first use."""

from covector.kernels.cpu.native import supports
from covector.kernels.cpu.operations import (
    add_field_,
    materialize_seeded_,
    materialize_sketch_,
    project_sketch_,
)

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_", "supports"]
