"""Tasks: from examples to batches, an objective, scores and predictions."""

from covector.language.tasks.causal import CausalTask
from covector.language.tasks.choose import task_for
from covector.language.tasks.completion import CompletionTask
from covector.language.tasks.task import Task, TokenizedTask
from covector.language.tasks.verbalizer import VerbalizerTask

__all__ = ["CausalTask", "CompletionTask", "Task", "TokenizedTask", "VerbalizerTask", "task_for"]
