"""The training loop: batches to an estimate to a step, with metrics, callbacks, checkpoints and exact resume.

:func:`train` is the loop; :class:`~covector.training.steps.StepRule` says how a gradient becomes a step (through
an optimizer, through the coordinates of a subspace, or in its carrier); :class:`Callback` is what may look on.
"""

from covector.training.callbacks import Callback
from covector.training.carrier import CarrierSGD
from covector.training.checkpoint import latest_checkpoint, read_checkpoint, write_checkpoint
from covector.training.history import History
from covector.training.loop import train
from covector.training.metrics import JsonLines, TensorBoard
from covector.training.run import Run

__all__ = [
    "Callback",
    "CarrierSGD",
    "History",
    "JsonLines",
    "Run",
    "TensorBoard",
    "latest_checkpoint",
    "read_checkpoint",
    "train",
    "write_checkpoint",
]
