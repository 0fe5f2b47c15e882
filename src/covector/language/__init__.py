"""What a language-model user needs between text and an Objective: models, examples, tasks, scores."""

from covector.language.batches import Batches
from covector.language.examples import Example, Shape, Splits, by_field, read_jsonl, shape_of, split
from covector.language.generation import generate
from covector.language.heads import TokenHead, VerbalizerHead
from covector.language.metrics import Interval, Scores, bootstrap, overall, paired_bootstrap
from covector.language.models import DEFAULT_MODEL, load_model, save_model
from covector.language.tasks import (
    CausalTask,
    CompletionTask,
    Task,
    TokenizedTask,
    VerbalizerTask,
    task_for,
)
from covector.language.tiny import tiny_model

__all__ = [
    "DEFAULT_MODEL",
    "Batches",
    "CausalTask",
    "CompletionTask",
    "Example",
    "Interval",
    "Scores",
    "Shape",
    "Splits",
    "Task",
    "TokenHead",
    "TokenizedTask",
    "VerbalizerHead",
    "VerbalizerTask",
    "bootstrap",
    "by_field",
    "generate",
    "load_model",
    "overall",
    "paired_bootstrap",
    "read_jsonl",
    "save_model",
    "shape_of",
    "split",
    "task_for",
    "tiny_model",
]
