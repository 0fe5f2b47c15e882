"""Any estimator in the ``Trainer`` of Hugging Face transformers: MeZO in five lines.

The Trainer keeps its arguments, callbacks, logging, accumulation, clipping, schedules and checkpoints; only where the
gradient comes from changes. The Trainer writes its own checkpoints in its own formats; what Covector adds to them is
the folder ``estimator``, safetensors and JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from covector.errors import CompositionError, MismatchError, UnsupportedError, require_extra
from covector.estimators import Backprop, Estimator
from covector.integrations.closures import objective_of
from covector.training import CarrierSGD, read_checkpoint, write_checkpoint
from covector.training.carrier import deposit, innermost

require_extra("transformers", "language")

from transformers import Trainer, TrainerCallback  # noqa: E402
from transformers.trainer_utils import get_last_checkpoint  # noqa: E402

__all__ = ["EstimatorMixin", "EstimatorTrainer"]

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class EstimatorMixin(_Base):
    """Makes a subclass of ``Trainer`` take its gradients from an estimator: ``class Mine(EstimatorMixin, SFTTrainer)``.

    Args:
        *args: as for the trainer.
        estimator: where the gradients come from; default :class:`~covector.Backprop`, which gives exactly the plain
            Trainer's steps.
        carrier: step by :class:`~covector.training.CarrierSGD` with the learning rate, schedule and weight decay of the
            training arguments: the gradient is applied from its carrier, and there is neither a ``.grad`` nor an
            optimizer state. Otherwise any optimizer of the arguments or of ``optimizers=`` gets a ``.grad``.
        dropout: whether the model is in training mode when it is evaluated. The probes of one estimate see the same
            dropout masks; ``False`` evaluates without dropout, as MeZO's authors do.
        **kwargs: as for the trainer.

    Raises:
        CompositionError: ``carrier=True`` together with an optimizer.
        UnsupportedError: several processes or GPUs, fp16 loss scaling, or a compiled model.

    >>> class MyTrainer(EstimatorMixin, Trainer):
    ...     pass
    """

    def __init__(
        self,
        *args: Any,
        estimator: Estimator | None = None,
        carrier: bool = False,
        dropout: bool = True,
        **kwargs: Any,
    ) -> None:
        self.estimator = Backprop() if estimator is None else estimator
        self.carrier = carrier
        self.dropout = dropout
        super().__init__(*args, **kwargs)
        if carrier and (self.optimizer is not None or self.optimizer_cls_and_kwargs is not None):
            raise CompositionError("carrier=True brings its own optimizer; leave out optimizers=, or carrier")
        self._check_setup()
        self.add_callback(_Hooks(self))

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One estimate, added to ``.grad`` or kept in its carrier until the optimizer steps."""
        model.train(self.dropout)
        switch = getattr(self.optimizer, "train", None)  # of a schedule-free optimizer
        if callable(switch):
            switch()
        share = self._share(num_items_in_batch)

        def compute(batch: dict[str, Any]) -> Tensor:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
            assert isinstance(loss, Tensor)
            return loss if share == 1 else loss / share

        objective = objective_of(model, compute)
        estimate = self.estimator(objective, (self._prepare_inputs(inputs), None))
        deposit(estimate.gradient, objective.params, innermost(self.optimizer))
        return torch.tensor(estimate.loss, device=self.args.device)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """With ``carrier=True`` a :class:`~covector.training.CarrierSGD`, else what the Trainer makes."""
        if not self.carrier:
            return super().create_optimizer() if model is None else super().create_optimizer(model)
        if self.optimizer is None:
            source: Any = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(source))
            named = {name: p for name, p in source.named_parameters() if p.requires_grad}
            groups = [
                {"params": {n: p for n, p in named.items() if n in decayed}, "weight_decay": self.args.weight_decay},
                {"params": {n: p for n, p in named.items() if n not in decayed}, "weight_decay": 0.0},
            ]
            self.optimizer = CarrierSGD([group for group in groups if group["params"]], lr=self.args.learning_rate)
        return self.optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; when it resumes, the estimator goes on from where it stood."""
        found = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if found:
            self._load_estimator(Path(found) / "estimator")
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's; a gradient in its carrier is measured there, if at all."""
        optimizer = None if self.optimizer is None else innermost(self.optimizer)
        if isinstance(optimizer, CarrierSGD) and "grad_norm" in logs:
            logs = {name: value for name, value in logs.items() if name != "grad_norm"}
            if optimizer.norm is not None:
                logs["grad_norm"] = optimizer.norm
        super().log(logs, *args, **kwargs)

    def _share(self, num_items_in_batch: Tensor | int | None) -> int:
        """By what the loss of one batch is divided when several make one step, as ``Trainer.training_step`` has it."""
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            by_model = self.model_accepts_loss_kwargs and num_items_in_batch is not None
            scaled = by_model or self.compute_loss_func is not None
        return 1 if scaled else int(self.current_gradient_accumulation_steps)

    def _check_setup(self) -> None:
        if self.args.world_size > 1 or self.args.n_gpu > 1 or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UnsupportedError("EstimatorTrainer trains on one device; start one process and show it one GPU")
        if self.args.fp16:
            raise UnsupportedError("fp16=True scales the loss for backward passes; use bf16=True or float32")
        if self.args.torch_compile:
            raise UnsupportedError("torch_compile=True: an estimator evaluates the model's own modules; leave it out")

    def _save_estimator(self, folder: Path) -> None:
        state = {"class": type(self.estimator).__name__, "state": self.estimator.state_dict()}
        write_checkpoint(folder, state)

    def _load_estimator(self, folder: Path) -> None:
        if not folder.is_dir():
            raise MismatchError(f"{folder} does not exist: the checkpoint was not written by an EstimatorTrainer")
        saved, mine = read_checkpoint(folder), type(self.estimator).__name__
        if saved["class"] != mine:
            raise MismatchError(f"{folder}: the estimator is {saved['class']} in the checkpoint but {mine} now")
        self.estimator.load_state_dict(saved["state"])


class _Hooks(TrainerCallback):
    """What has to happen inside the Trainer's loop."""

    def __init__(self, trainer: EstimatorMixin) -> None:
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            self.trainer._save_estimator(Path(args.output_dir) / f"checkpoint-{state.global_step}" / "estimator")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = innermost(self.trainer.optimizer)
        if isinstance(optimizer, CarrierSGD) and args.max_grad_norm:
            optimizer.clip(args.max_grad_norm)


class EstimatorTrainer(EstimatorMixin, Trainer):
    """The ``Trainer`` of transformers with any estimator; for its arguments see :class:`EstimatorMixin`.

    For MeZO as published set ``max_grad_norm=0`` in the training arguments: their default of 1 would scale nearly every
    zeroth-order gradient down, whose norm is about ``sqrt(number of parameters)`` times the slope.

    >>> from covector import ZerothOrder
    >>> def mezo(model, args, data):
    ...     return EstimatorTrainer(model, args, train_dataset=data, estimator=ZerothOrder(), carrier=True)
    """
