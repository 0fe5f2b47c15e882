"""The character language model, as the papers' experiments know it; it lives in :mod:`covector.compare.tasks`."""

from covector.compare.tasks.charlm import BATCH, CharLM, Model, charlm, cross_entropy, train

__all__ = ["BATCH", "CharLM", "Model", "charlm", "cross_entropy", "train"]
