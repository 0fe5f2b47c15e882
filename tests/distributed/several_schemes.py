"""What each process of test_processes.py does: it lives in a file that a new process can import."""

from covector.distributed import participate
from covector.evidence.experiments.asynchronous import logistic


def several(schemes, stream, steps):
    """Run one scheme after the other."""
    return [participate(scheme, logistic(0), stream, steps) for scheme in schemes]
