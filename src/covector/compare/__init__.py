"""Compare optimizers fairly: the same budget to tune each, several seeds, intervals, and a report.

:class:`Settings` says what to compare, :func:`compare` does it and leaves a folder: every trial as a line of JSON,
the ranking, and a report with the curves.
"""

from covector.compare.optimizers import build, names, resolve
from covector.compare.ranking import Row
from covector.compare.report import write_report
from covector.compare.run import Comparison, Event, Listener, compare
from covector.compare.schedules import SCHEDULES
from covector.compare.settings import TUNERS, Settings
from covector.compare.tasks import TASKS, Task, find_task
from covector.compare.trial import Result, Trial, run_trial

__all__ = [
    "SCHEDULES",
    "TASKS",
    "TUNERS",
    "Comparison",
    "Event",
    "Listener",
    "Result",
    "Row",
    "Settings",
    "Task",
    "Trial",
    "build",
    "compare",
    "find_task",
    "names",
    "resolve",
    "run_trial",
    "write_report",
]
