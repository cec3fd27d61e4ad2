"""The results of the bench as a picture: p95 latency at the steady load, and throughput."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.lab.measures import median_and_spread
from bench.rivals.report import Measured, at_load, catching_up, taking_part

mpl.use("Agg")
from matplotlib import pyplot as plt

# Title, figure, its unit, scale of the axis, least value shown.
ROWS = (
    ("p95 latency at 1,000 a second (ms)", at_load("p95"), 1, "log", 0.5),
    ("catching up (thousands a second)", catching_up("per_second"), 1000, "linear", 0),
)


def draw(measured: Measured, path: Path) -> None:
    """Draw a bar for each contestant, with least and greatest of the repetitions, where there is more than one."""
    shown = {name: own for name, results in measured.items() if len(own := [*taking_part(results, name)]) > 1}
    if not shown:
        return
    size = (5.5 * len(shown), 6)
    figure, panels = plt.subplots(len(ROWS), len(shown), figsize=size, squeeze=False, layout="constrained")
    for (title, figure_of, unit, scale, least), row in zip(ROWS, panels, strict=True):
        for (workload, contestants), panel in zip(shown.items(), row, strict=True):
            for contestant, runs in contestants:
                if found := median_and_spread([figure_of(run) for run in runs]):
                    low, middle, high = (max(found[name] / unit, least) for name in ("min", "median", "max"))
                    panel.barh(contestant.name, middle, xerr=[[middle - low], [high - middle]])
            panel.set(title=workload, xlabel=title, xscale=scale)
            panel.set_xlim(left=least)
            panel.invert_yaxis()
    figure.savefig(path, dpi=100)
    plt.close(figure)
