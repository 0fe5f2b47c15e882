"""What carries a gradient: dense tensors, seeds, a sketch, low rank; its bytes; and the exact ledger.

The same covector ``g`` may be carried as

* :class:`Dense`: d numbers,
* :class:`Seeded`: K (seed, coefficient) pairs, ``g = sum_k c_k z(seed_k)``,
* :class:`Sketch`: N numbers spread by seeded signs, ``g = D tile(x)``,
* :class:`LowRank`: ``U V^T`` for each matrix.

Sums and scalings stay in the carrier; only :meth:`Gradient.add_to_` and :meth:`Gradient.dense` touch all d
parameters, in one pass. :class:`Ledger` accumulates integers over a pool of directions, so that training
becomes a list of scalars that every machine replays to the same bits.
"""

from covector.gradients.base import Gradient
from covector.gradients.codec import decode, encode
from covector.gradients.dense import Dense
from covector.gradients.ledger import Ledger
from covector.gradients.lowrank import LowRank
from covector.gradients.onebyte import OneByte
from covector.gradients.perturbed import Perturbed
from covector.gradients.pools import Pool, SeedPool, SketchPool
from covector.gradients.seeded import Seeded
from covector.gradients.sketch import Sketch, project
from covector.gradients.subspace import Subspace, coordinates

__all__ = [
    "Dense",
    "Gradient",
    "Ledger",
    "LowRank",
    "OneByte",
    "Perturbed",
    "Pool",
    "SeedPool",
    "Seeded",
    "Sketch",
    "SketchPool",
    "Subspace",
    "coordinates",
    "decode",
    "encode",
    "project",
]
