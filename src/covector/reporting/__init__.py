"""Reports in one HTML file with everything in it, to be opened by anybody: a page, its look, and drawings inside.

A report is a template that extends ``base.html`` and fills ``title`` and ``main``.
"""

from covector.reporting.drawing import COLORS, svg
from covector.reporting.page import environment, write_page

__all__ = ["COLORS", "environment", "svg", "write_page"]
