"""SmoothGrad: a planted task whose true features are known, and four pieces of clothing of which one is explained."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import Tensor

from covector.attribution import heatmap, input_gradient, integrated_gradients, smooth
from covector.evidence.budget import Budget
from covector.evidence.experiments.saliency import Clothes, auc, coherence, planted
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper

SPREADS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


@paper(
    "smoothgrad",
    parts=["covector.attribution.smoothgrad", "covector.attribution.smoothgrad_squared",
           "covector.attribution.vargrad", "covector.attribution.integrated_gradients"],
)  # fmt: skip
def evidence(budget: Budget) -> Evidence:
    """Whether the maps name the features that matter, and point at the right picture of four."""
    features = planted_findings(budget)
    pointing, figures = clothes_findings(budget)
    return Evidence("smoothgrad", [*features, *pointing], figures)


def planted_findings(budget: Budget) -> list[Finding]:
    """How well the size of the map tells 6 features that decide the label from 58 that do not."""
    full = budget.name == "full"
    seeds = range(budget.choose(smoke=1, full=3))
    scores: dict[str, list[float]] = {"gradient": [], "SmoothGrad": [], "squared": [], "VarGrad": [], "5 samples": []}
    for seed in seeds:
        model, x, y = planted(budget.seed + seed, epochs=budget.choose(smoke=3, full=60))
        found = smooth(model, x, y, spread=0.2, samples=50, seed=seed, chunk=1024)
        maps = {
            "gradient": input_gradient(model, x, y, chunk=1024), "SmoothGrad": found.mean, "squared": found.square,
            "VarGrad": found.variance,
            "5 samples": smooth(model, x, y, spread=0.2, samples=5, seed=seed, chunk=1024).mean,
        }  # fmt: skip
        for name, map_ in maps.items():
            scores[name].append(auc(map_.abs(), relevant=6))
    mean = {name: statistics.fmean(values) for name, values in scores.items()}
    better = all(ours > plain for ours, plain in zip(scores["SmoothGrad"], scores["gradient"], strict=True))
    note = (
        "64 Gaussian features, 6 of them decide the label; ReLU network 64-256-256-2 overfitted to 1,500 points; "
        f"noise 0.2 of the range, 50 samples, {len(seeds)} seed(s); "
        + "; ".join(f"{name} {value:.3f}" for name, value in mean.items())
    )
    unit = "area under the ROC curve of |map|"
    return [
        Finding("Averaging over noisy copies makes the map less noisy", "visually sharper", mean["SmoothGrad"],
                mean["gradient"], unit, better if full else None, f"holds if on every seed; {note}"),
        Finding("The mean of squares is better still (the official library's magnitude=True)", "not given",
                mean["squared"], mean["SmoothGrad"], unit, mean["squared"] > mean["SmoothGrad"] if full else None,
                note),
        Finding("More samples make it smoother", "diminishing beyond 50", mean["SmoothGrad"], mean["5 samples"], unit,
                mean["SmoothGrad"] > mean["5 samples"] if full else None, f"50 samples against 5; {note}"),
    ]  # fmt: skip


def clothes_findings(budget: Budget) -> tuple[list[Finding], list[Path]]:
    """The share of a map that lies on the picture whose class is explained, of four in a square."""
    full = budget.name == "full"
    clothes = Clothes(budget.seed, steps=budget.choose(smoke=12, full=500), count=budget.choose(smoke=16, full=200))
    x, where, classes = clothes.grids()
    samples = budget.choose(smoke=4, full=50)
    shares, relative, coherent = {}, {}, {}
    for spread in budget.choose(smoke=SPREADS[1:4:2], full=SPREADS):
        found = smooth(clothes.model, x, classes, samples=samples, spread=spread)
        coherent[spread] = coherence(found.mean)
        relative[spread] = float(found.error.norm() / found.mean.norm())
        # roots, so that all three are in the units of a gradient: squares alone would gather a share on few pixels
        maps = {"SmoothGrad": found.mean, "squared": found.square.sqrt(), "VarGrad": found.variance.sqrt()}
        shares[spread] = {name: clothes.share(map_, where) for name, map_ in maps.items()}
    gradient = input_gradient(clothes.model, x, classes)
    plain, speckled = clothes.share(gradient, where), coherence(gradient)
    shared = integrated_gradients(clothes.model, x, classes, steps=samples)
    integrated = clothes.share(shared.shares, where)
    usual = shares[0.2]
    best = max(shares, key=lambda spread: shares[spread]["SmoothGrad"])
    path = budget.path("share-of-the-map-on-the-right-picture-by-noise.svg")
    with figure(path, x="noise, share of the input's range", y="share of the map on the right picture") as axes:
        for name in ("SmoothGrad", "squared", "VarGrad"):
            axes.plot(list(shares), [shares[spread][name] for spread in shares], "o-", markersize=4, label=name)
        axes.axhline(plain, color="black", linestyle="--", linewidth=1, label="gradient")
        axes.axhline(integrated, color="black", linestyle=":", linewidth=1, label="integrated gradients")
        axes.axhline(0.25, color="gray", linewidth=1, label="chance")
    note = (
        "Fashion-MNIST, four pictures of different classes in a square of 56 x 56, a convolutional network that says "
        f"which classes are there (accuracy {clothes.accuracy:.3f} a class), {len(x)} held-out squares, {samples} "
        f"samples; chance is 0.25; gradient {plain:.3f}, integrated gradients {integrated:.3f} (mean gap "
        f"{float(shared.gap.abs().mean()):.2g} of logits), at noise 0.2: "
        + ", ".join(f"{name} {value:.3f}" for name, value in usual.items())
    )
    unit = "share of |map| on the explained picture"
    return [
        Finding("Averaging makes maps more coherent", "visually more coherent", coherent[0.2], speckled,
                "correlation of |map| at neighboring pixels", coherent[0.2] > speckled + 0.05 if full else None,
                "by noise: " + ", ".join(f"{s:g} {value:.3f}" for s, value in coherent.items())
                + f"; holds beyond 0.05; {note}"),
        Finding("A smoothed map lies on the object more than the plain gradient", "visually sharper",
                usual["SmoothGrad"], plain, unit, usual["SmoothGrad"] > plain + 0.01 if full else None,
                f"holds beyond 0.01; {note}"),
        Finding("Noise of 10 to 20 percent of the range is best", "0.1 to 0.2", best, "none",
                "noise, share of the range", 0.1 <= best <= 0.2 if full else None,
                "; ".join(f"{spread:g}: {shares[spread]['SmoothGrad']:.3f}" for spread in shares)),
        Finding("50 samples are enough (a claim of this library: the standard error says so)", "50", relative[0.2], 1.0,
                "error of the map over its length", relative[0.2] < 0.5 if full else None,
                "root of the summed squared standard errors over the map's norm at noise 0.2, from the variance that "
                "is computed anyway; at other noise: "
                + ", ".join(f"{s:g} {value:.2f}" for s, value in relative.items())),
    ], [path, pictures(budget, clothes, samples)]  # fmt: skip


def pictures(budget: Budget, clothes: Clothes, samples: int) -> Path:
    """Some squares and their maps, beside each other."""
    x, where, classes = (part[:3] for part in clothes.grids())
    found = smooth(clothes.model, x, classes, samples=samples, spread=0.2)
    shares = integrated_gradients(clothes.model, x, classes, steps=samples).shares
    columns = {
        "input": x[:, 0], "gradient": heatmap(input_gradient(clothes.model, x, classes)),
        "SmoothGrad": heatmap(found.mean), "squared": heatmap(found.square), "VarGrad": heatmap(found.variance),
        "integrated": heatmap(shares),
    }  # fmt: skip
    rows = [torch.cat([padded(column[k]) for column in columns.values()], 1) for k in range(len(x))]
    path = budget.path("maps-of-three-squares.svg")
    size = x.shape[-1] + 4
    with figure(path, size=(1.5 * len(columns), 1.5 * len(x) + 0.4)) as axes:
        axes.imshow(1 - torch.cat(rows), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks([size * (k + 0.5) for k in range(len(columns))], list(columns))
        names = [f"{clothes.names[int(c)]},\n{corner(int(w))}" for c, w in zip(classes, where, strict=True)]
        axes.set_yticks([size * (k + 0.5) for k in range(len(x))], names)
    return path


def padded(image: Tensor) -> Tensor:
    """An image with a white border, on the scale on which 1 is black."""
    return torch.nn.functional.pad(image, (2, 2, 2, 2))


def corner(quadrant: int) -> str:
    """Where a quadrant is.

    >>> corner(1)
    'top right'
    """
    return ("top left", "top right", "bottom left", "bottom right")[quadrant]
