"""The results of the bench as pictures: p95 latency over load, and throughput."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from measures import median_and_spread
from report import Measured, label_of, taking_part

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

LEAST_MS = 0.5  # what the clock tells as 0 ms, on an axis that has no 0


def draw(measured: Measured, folder: Path) -> None:
    """Write performance-latency.png and performance-throughput.png."""
    for name, height, fill in (("latency", 5.0, latency), ("throughput", 4.0, throughput)):
        size = (6.5 * len(measured), height)
        figure, axes = plt.subplots(1, len(measured), figsize=size, squeeze=False, layout="constrained")
        for axis, (workload, results) in zip(axes[0], measured.items(), strict=True):
            fill(axis, results, workload)
        figure.savefig(folder / f"performance-{name}.png", dpi=120)
        plt.close(figure)


def latency(axis: Axes, results: dict[str, Any], workload: str) -> None:
    """Draw a line for each contestant: p95 over the load reached, medians of the repetitions."""
    for contestant, runs in taking_part(results, workload):
        points: dict[str, list[tuple[float, float]]] = {}
        for load in (load for run in runs for load in run["loads"] if load["p95"] is not None):
            pair = load["reached_per_second"], max(load["p95"], LEAST_MS)
            points.setdefault(label_of(load), []).append(pair)
        line = sorted([statistics.median(column) for column in zip(*pairs, strict=True)] for pairs in points.values())
        if line:
            axis.loglog(*zip(*line, strict=True), marker="o", label=contestant.name)
    axis.set(title=workload, xlabel="messages a second", ylabel="p95 latency (ms)")
    axis.grid(visible=True, which="both", alpha=0.3)
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)  # beneath, not on the lines


def throughput(axis: Axes, results: dict[str, Any], workload: str) -> None:
    """Draw a bar for each contestant, with least and greatest of the repetitions."""
    for contestant, runs in taking_part(results, workload):
        if rate := median_and_spread([run["catch_up"]["per_second"] for run in runs]):
            below, above = rate["median"] - rate["min"], rate["max"] - rate["median"]
            axis.barh(contestant.name, rate["median"] / 1000, xerr=[[below / 1000], [above / 1000]])
    _, last = axis.get_ylim()
    axis.set_ylim(max(last, 3.5), -0.5)  # the first one on top, and a bar alone no wider than others
    axis.set(title=f"{workload}, catching up", xlabel="thousand messages a second")
