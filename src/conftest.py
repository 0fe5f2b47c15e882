"""Doctest collection: the Triton programs can only be imported where Triton is installed."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["covector/kernels/cuda/*"]
