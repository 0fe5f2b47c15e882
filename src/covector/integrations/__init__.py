"""Covector's estimators inside other training frameworks; each module needs its framework when it is imported.

:mod:`covector.integrations.transformers` has a ``Trainer``, :mod:`covector.integrations.lightning` a mixin for any
``LightningModule``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covector.integrations.lightning import EstimatorModule
    from covector.integrations.transformers import EstimatorMixin, EstimatorTrainer

__all__ = ["EstimatorMixin", "EstimatorModule", "EstimatorTrainer"]

_HOMES = {"EstimatorModule": "lightning", "EstimatorMixin": "transformers", "EstimatorTrainer": "transformers"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
