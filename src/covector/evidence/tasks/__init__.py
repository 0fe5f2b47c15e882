"""Tasks small enough for an experiment to train on in seconds, shared by the papers' experiments."""

from covector.evidence.tasks.charlm import BATCH, CharLM, Model, charlm, cross_entropy, train

__all__ = ["BATCH", "CharLM", "Model", "charlm", "cross_entropy", "train"]
