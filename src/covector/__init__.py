"""Covector: the gradient as a first-class value."""

__version__ = "0.1.0"
