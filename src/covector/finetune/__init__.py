"""Fine-tune a language model across machines for kilobytes a round, and show what came of it.

:class:`Settings` says what to do, :func:`finetune` does it and leaves a folder: the model, the patch that
reproduces it from the base, the journal, the metrics and a report.
"""

from covector.finetune.engines import Embedded, Engine, Flower, Job
from covector.finetune.federation import Federation, gather
from covector.finetune.outputs import Outcome, finetune
from covector.finetune.progress import Listener, RoundRecord
from covector.finetune.run import MethodResult, Workbench
from covector.finetune.scoring import Scorecard, calibrated_accuracy
from covector.finetune.settings import METHODS, PRESETS, Settings

__all__ = [
    "METHODS",
    "PRESETS",
    "Embedded",
    "Engine",
    "Federation",
    "Flower",
    "Job",
    "Listener",
    "MethodResult",
    "Outcome",
    "RoundRecord",
    "Scorecard",
    "Settings",
    "Workbench",
    "calibrated_accuracy",
    "finetune",
    "gather",
]
