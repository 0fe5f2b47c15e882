"""What an experiment ran on: enough for a reader to judge a number, nothing that names a machine."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata

__all__ = ["describe_environment"]


def describe_environment() -> dict[str, str]:
    """Describe the software and the machine of this process.

    Returns:
        Versions of Python, Covector, torch and NumPy, the processor, cores, threads, the accelerator and
        the date (UTC).

    >>> sorted(describe_environment())[:4]
    ['accelerator', 'cores', 'covector', 'date']
    """
    import torch

    import covector

    return {
        "covector": covector.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def processor_name() -> str:
    """Return the processor's model name, or its architecture where the system gives no better one.

    >>> processor_name() != ""
    True
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
