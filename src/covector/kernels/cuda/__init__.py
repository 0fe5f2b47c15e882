"""The kernels for CUDA tensors: Triton programs, compiled by Triton at first use."""

from covector.kernels.cuda.operations import (
    add_field_,
    materialize_seeded_,
    materialize_sketch_,
    project_sketch_,
    supports,
)

__all__ = ["add_field_", "materialize_seeded_", "materialize_sketch_", "project_sketch_", "supports"]
