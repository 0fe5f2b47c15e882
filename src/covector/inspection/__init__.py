"""``covector inspect``: what is looked at, what the numbers say in words, and the report."""

from covector.inspection.reading import Reading, read
from covector.inspection.report import write_report
from covector.inspection.subject import Subject, subject_from_model, subject_from_task, train_subject

__all__ = [
    "Reading",
    "Subject",
    "read",
    "subject_from_model",
    "subject_from_task",
    "train_subject",
    "write_report",
]
