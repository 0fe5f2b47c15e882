"""The task that fits the shape of some examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from covector.language.examples import Example, Shape, shape_of
from covector.language.tasks.causal import CausalTask
from covector.language.tasks.completion import CompletionTask
from covector.language.tasks.task import TokenizedTask
from covector.language.tasks.verbalizer import VerbalizerTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["task_for"]

_TASKS: dict[Shape, type[TokenizedTask]] = {
    "text": CausalTask,
    "prompt": CompletionTask,
    "label": VerbalizerTask,
}


def task_for(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, **options: Any) -> TokenizedTask:
    """A task chosen by the shape of ``examples``.

    Args:
        examples: at least one, all of one shape.
        tokenizer: the model's tokenizer.
        options: passed on to :class:`CausalTask`, :class:`CompletionTask` or :class:`VerbalizerTask`.

    >>> from covector.language import tiny_model
    >>> _, tokenizer = tiny_model("one two")
    >>> type(task_for([{"prompt": "one", "completion": "two"}], tokenizer)).__name__
    'CompletionTask'
    """
    return _TASKS[shape_of(examples)](tokenizer, **options)
