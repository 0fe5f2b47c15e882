"""Any estimator in a ``LightningModule`` and Lightning's ``Trainer``.

The module keeps its ``training_step``, which becomes the objective, and automatic optimization: accumulation, clipping,
precision, callbacks and checkpoints stay Lightning's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from covector.errors import CompositionError, MismatchError, UnsupportedError, require_extra
from covector.estimators import Backprop, Estimator
from covector.gradients import Gradient
from covector.integrations.closures import objective_of
from covector.training import CarrierSGD
from covector.training.carrier import deposit, innermost
from covector.trees import Params

require_extra("lightning", "lightning")

from lightning.pytorch import LightningModule  # noqa: E402

__all__ = ["EstimatorModule"]

if TYPE_CHECKING:
    _Base = LightningModule
else:
    _Base = object


class EstimatorModule(_Base):
    """A mixin that makes a ``LightningModule`` take its gradients from an estimator.

    Write ``class Mine(EstimatorModule, Net)``. ``training_step`` is then evaluated as often as the estimator probes;
    what it logs is what the probes saw. Optimizers come from ``configure_optimizers``: any, or a
    :class:`~covector.training.CarrierSGD` over ``dict(self.named_parameters())``, with which no ``.grad`` is allocated.
    Whether there is dropout is decided by the module's mode; the probes of one estimate see the same masks.

    Args:
        *args: as for the module.
        estimator: where the gradients come from; default :class:`~covector.Backprop`. Its state is saved in and resumed
            from Lightning's checkpoints.
        **kwargs: as for the module.

    Raises:
        CompositionError: manual optimization, or several optimizers.
        UnsupportedError: several devices, or 16-bit loss scaling.

    >>> from covector import ZerothOrder
    >>> class Net(LightningModule):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(width, 1)
    ...     def training_step(self, batch, batch_idx):
    ...         return self.layer(batch).square().mean()
    >>> class MeZO(EstimatorModule, Net):
    ...     pass
    >>> module = MeZO(2, estimator=ZerothOrder())
    """

    def __init__(self, *args: Any, estimator: Estimator | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.estimator = Backprop() if estimator is None else estimator
        self._pending: tuple[Gradient, Params] | None = None

    def save_hyperparameters(
        self, *args: Any, ignore: Sequence[str] | str | None = None, frame: FrameType | None = None, logger: bool = True
    ) -> None:
        """As Lightning's, without the estimator: its state is saved, not the object."""
        ignored = [ignore] if isinstance(ignore, str) else list(ignore or ())
        current = inspect.currentframe()
        caller = current.f_back if frame is None and current is not None else frame
        super().save_hyperparameters(*args, ignore=[*ignored, "estimator"], frame=caller, logger=logger)

    def on_fit_start(self) -> None:
        """Refuse what an estimator cannot work with, before the first step."""
        super().on_fit_start()
        if not self.automatic_optimization or len(self.trainer.optimizers) != 1:
            raise CompositionError("an EstimatorModule needs automatic optimization and one optimizer")
        if self.trainer.world_size > 1:
            raise UnsupportedError(f"devices={self.trainer.world_size}: an EstimatorModule trains on one device")
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise UnsupportedError("precision='16-mixed' scales the loss for backward passes; use 'bf16-mixed' or 32")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """One estimate, kept for :meth:`backward`; gives the loss."""
        step = super().training_step
        arguments = (batch_idx,) if len(inspect.signature(step).parameters) > 1 else ()
        outputs: Any = None

        def compute(batch: Any) -> Tensor:
            nonlocal outputs
            outputs = step(batch, *arguments)
            loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
            if not isinstance(loss, Tensor):
                raise CompositionError(f"training_step returned {type(loss).__name__}; an estimator needs the loss")
            return loss

        objective = objective_of(self, compute)
        estimate = self.estimator(objective, (batch, None))
        self._pending = (estimate.gradient, objective.params)
        loss = torch.tensor(estimate.loss, device=self.device)
        return {**outputs, "loss": loss} if isinstance(outputs, Mapping) else loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hand the estimate of :meth:`training_step` to the optimizer, averaged over accumulated batches."""
        assert self._pending is not None
        (gradient, params), self._pending = self._pending, None
        optimizer = innermost(self.trainer.optimizers[0])
        deposit(gradient * (1.0 / self.trainer.accumulate_grad_batches), params, optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of a gradient in its carrier there, any other as Lightning does."""
        inner = innermost(optimizer)
        if not isinstance(inner, CarrierSGD):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            raise CompositionError("gradient_clip_algorithm='value' with CarrierSGD: a carrier is clipped by its norm")
        elif gradient_clip_val:
            inner.clip(gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the estimator's state."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["covector"] = {"class": type(self.estimator).__name__, "state": self.estimator.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the estimator's state, if the checkpoint has one."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("covector")
        if saved is None:
            return
        if saved["class"] != type(self.estimator).__name__:
            mine = type(self.estimator).__name__
            raise MismatchError(f"the estimator is {saved['class']} in the checkpoint but {mine} now")
        self.estimator.load_state_dict(saved["state"])
