"""The papers' claims, measured: one module a paper, one table of claim against measurement each.

>>> from covector.evidence import papers
>>> len(papers())
120
"""

from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper, papers
from covector.evidence.runner import DidNotRun, collect, run
from covector.evidence.site import build_site
from covector.evidence.table import STATIONS, Paper

__all__ = [
    "STATIONS",
    "Budget",
    "DidNotRun",
    "Evidence",
    "Finding",
    "Paper",
    "build_site",
    "collect",
    "figure",
    "paper",
    "papers",
    "run",
]
