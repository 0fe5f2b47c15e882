"""A process that runs trials: one JSON object a line in, one a line out. Started as a module by :mod:`workers`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Serve trials until the input ends."""
    import torch

    from covector.compare.trial import Trial, run_trial

    torch.set_num_threads(1)
    # what a task prints must not stand between the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        result = run_trial(Trial(**json.loads(line)))
        assert result is not None
        answers.write(json.dumps(dataclasses.asdict(result)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
