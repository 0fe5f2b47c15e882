"""Kernels that generate random fields and fold them into parameters, one pass over memory each.

Five operations, three implementations that give the same bits:

* ``reference``: plain torch, any device; it defines the result and is the oracle of the other two.
* ``cpu``: numba (LLVM inside a wheel: no compiler on the user's machine), compiled once and cached on disk.
* ``cuda``: Triton.

``COVECTOR_KERNELS=reference`` forces plain torch. :func:`backend` says which one serves a tensor.
"""

from covector.kernels.dispatch import (
    add_field_,
    backend,
    materialize_seeded_,
    materialize_sketch_,
    project_sketch_,
)

__all__ = ["add_field_", "backend", "materialize_seeded_", "materialize_sketch_", "project_sketch_"]
