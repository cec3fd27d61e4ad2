"""The results of the bench as a picture: p95 latency at the reference load, and throughput."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.lab.measures import median_and_spread
from bench.rivals.report import Measured, at_load, catching_up, taking_part

mpl.use("Agg")
from matplotlib import pyplot as plt

ROWS = (
    ("p95 latency at 1,000 messages a second (ms)", at_load("p95")),
    ("catching up, messages a second", catching_up("per_second")),
)


def draw(measured: Measured, folder: Path) -> None:
    """Write performance.png: a bar for each contestant, with least and greatest of the repetitions."""
    size = (5.5 * len(measured), 6)
    figure, panels = plt.subplots(len(ROWS), len(measured), figsize=size, squeeze=False, layout="constrained")
    for (title, figure_of), row in zip(ROWS, panels, strict=True):
        for (workload, results), panel in zip(measured.items(), row, strict=True):
            for contestant, runs in taking_part(results, workload):
                if found := median_and_spread([figure_of(run) for run in runs]):
                    edges = [[found["median"] - found["min"]], [found["max"] - found["median"]]]
                    panel.barh(contestant.name, max(found["median"], 0.5), xerr=edges)  # a log axis has no 0 ms
            panel.set(title=workload, xlabel=title, xscale="log")
            panel.invert_yaxis()
    figure.savefig(folder / "performance.png", dpi=100)
    plt.close(figure)
