"""covector.train: one loop for every estimator, carrier and optimizer, with metrics, checkpoints and resume.

    python examples/plain_loop.py --steps 400

Stop it with Ctrl-C and start it again: it goes on where it stood, bit for bit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from covector import Backprop, Objective, SketchPool, Subspace, ZerothOrder, data, train


def recipes(objective):
    """Three ways from an objective to a step; each is a few arguments of ``train``."""
    pool = SketchPool(key=1, size=512)
    subspace = Subspace(objective.params, pool)
    return {
        "backprop, Adam": {"optimizer": torch.optim.Adam(objective.params.values(), lr=5e-3)},
        "backprop, Adam on 512 numbers": {
            "estimator": Backprop(pool),
            "subspace": subspace,
            "optimizer": torch.optim.Adam([subspace.x], lr=2e-2),
        },
        "zeroth order, no .grad": {"estimator": ZerothOrder(queries=16, seed=1), "lr": 0.05},
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", default="runs/plain")
    given = parser.parse_args(arguments)
    digits = data.load("digits")
    images, labels = next(iter(digits.loader("test", batch_size=1000)))

    def evaluate(objective):
        hits = objective.outputs((images, None)).argmax(1) == labels
        return {"accuracy": hits.float().mean().item()}

    accuracy = {}
    for number in range(3):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        objective = Objective(net, nn.functional.cross_entropy)
        name, recipe = list(recipes(objective).items())[number]
        history = train(
            objective,
            digits.loader("train", batch_size=32, shuffle=True),
            steps=given.steps,
            evaluate=evaluate,
            evaluate_every=100,
            checkpoint_every=100,
            out=Path(given.out) / str(number),
            **recipe,
        )
        if history.stopped == "interrupted":
            print(f"stopped after {history.steps} steps; start again to go on")
            return accuracy
        accuracy[name] = history.evaluations[-1]["accuracy"]
        print(f"{name:30s} test accuracy {accuracy[name]:.3f} after {history.steps} steps")
    return accuracy


if __name__ == "__main__":
    main()
