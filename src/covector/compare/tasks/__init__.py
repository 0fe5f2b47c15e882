"""What optimizers are compared on: small models on real data that train in seconds, or a function of yours."""

from covector.compare.tasks.base import Task
from covector.compare.tasks.find import TASKS, find_task

__all__ = ["TASKS", "Task", "find_task"]
