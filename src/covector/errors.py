"""The typed errors. A message says what went wrong, in which argument, the value seen and what would work.

Every error the library raises on purpose is a :class:`CovectorError`; each subclass also derives from the
built-in error a Python user would expect (``ValueError``, ``TypeError``, ...), so existing handlers work.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CompositionError",
    "CorruptionError",
    "CovectorError",
    "DataError",
    "MismatchError",
    "MissingExtraError",
    "NonFiniteError",
    "ProtocolError",
    "UnsupportedError",
    "require_extra",
]


class CovectorError(Exception):
    """Base of all errors that Covector raises on purpose.

    >>> issubclass(ArgumentError, CovectorError) and issubclass(ArgumentError, ValueError)
    True
    """


class ArgumentError(CovectorError, ValueError):
    """An argument has a value that cannot work; ``argument`` names it, ``value`` is what was seen.

    >>> raise ArgumentError("queries", 0, "a whole number of at least 1")
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: queries=0: expected a whole number of at least 1
    """

    def __init__(self, argument: str, value: object, expected: str) -> None:
        self.argument = argument
        self.value = value
        super().__init__(f"{argument}={value!r}: expected {expected}")


class CompositionError(CovectorError, TypeError):
    """Two parts that do not fit together (an estimator with a carrier, a carrier with an optimizer)."""


class MismatchError(CovectorError, ValueError):
    """Two values that should describe the same thing differ: shapes, names, hashes, base models."""


class UnsupportedError(CovectorError, TypeError):
    """A kind of input this method is not defined for: sparse or complex tensors, a device, a dtype."""


class NonFiniteError(CovectorError, ArithmeticError):
    """A loss, gradient or parameter is NaN or infinite; raised at the station where it first appears."""


class CorruptionError(CovectorError, ValueError):
    """Bytes that do not decode: wrong magic, version, length or checksum. Nothing was applied."""


class ProtocolError(CovectorError, RuntimeError):
    """A well-formed message that does not fit the state of the run: wrong round, unknown client, replay."""


class DataError(CovectorError, RuntimeError):
    """Data or a model could not be fetched or read; the message says which program or file is missing."""


class MissingExtraError(CovectorError, ImportError):
    """An optional dependency is absent; the message names the extra that installs it.

    >>> print(MissingExtraError("transformers", "language"))
    'transformers' is not installed; install it with: pip install 'covector[language]'
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package!r} is not installed; install it with: pip install 'covector[{extra}]'")


def require_extra(package: str, extra: str) -> None:
    """Raise :class:`MissingExtraError` unless ``package`` can be imported (it is not imported here).

    Args:
        package: import name of the optional dependency.
        extra: the extra of ``covector`` that installs it.

    >>> require_extra("numpy", "language")
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra)
