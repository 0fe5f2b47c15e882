"""Where a gradient comes from: ``estimator(objective, batch) -> Estimate(loss, gradient)``.

``estimator.backward(objective, batch)`` fills ``.grad`` instead, so that any ``torch.optim`` optimizer works
with any estimator. An estimator only reads the parameters.
"""

from covector.estimators.backprop import Backprop
from covector.estimators.base import Estimate, Estimator
from covector.estimators.directions import Directions, FieldDirections, LowRankDirections, PoolDirections
from covector.estimators.probes import loss_at, slope_central, slope_forward, slope_jvp
from covector.estimators.zeroth_order import ZerothOrder, kernel_weight

__all__ = [
    "Backprop",
    "Directions",
    "Estimate",
    "Estimator",
    "FieldDirections",
    "LowRankDirections",
    "PoolDirections",
    "ZerothOrder",
    "kernel_weight",
    "loss_at",
    "slope_central",
    "slope_forward",
    "slope_jvp",
]
