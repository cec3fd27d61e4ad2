"""What growth costs: which points are measured, and table and picture of docs/growth.json. No I/O but the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullLocator


@dataclass(frozen=True)
class Point:
    """What is loaded: nodes in one driver, partitions of each one's topic, readings a second in all, model size."""

    nodes: int = 2
    partitions: int = 1
    rate: int = 1000
    hidden_units: int = 16


BASE = Point()
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "nodes": ("nodes in one driver", (1, 2, 4, 8, 16, 50)),
    "partitions": ("partitions of a node's topic", (1, 2, 4)),
    "rate": ("readings a second, of all nodes", (100, 1000, 5000, 20_000)),
    "hidden_units": ("hidden units of the MLP", (16, 256, 4096)),
}


def points(axis: str) -> list[Point]:
    """Return the points of an axis, in ascending order."""
    return [replace(BASE, **{axis: value}) for value in AXES[axis][1]]


def added(earlier: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with the points of an earlier run beside them that they lack, if both were made alike."""
    before, now = (
        {"processor": run["machine"]["processor"], "cores": run["machine"]["cores"]}
        | {name: run[name] for name in ("versions", "runner", "seconds")}
        for run in (earlier, results)
    )
    new = [_key(row) for row in results["points"]]
    kept = [row for row in earlier["points"] if before == now and _key(row) not in new]
    return dict(results) | {"points": [*kept, *results["points"]]}


def _key(row: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in asdict(BASE))


def rows_of(results: Mapping[str, Any], axis: str) -> list[dict[str, Any]]:
    """Return the measured points of an axis, in ascending order."""
    wanted = {tuple(asdict(point).values()) for point in points(axis)}
    rows = [row for row in results["points"] if _key(row) in wanted]
    return sorted(rows, key=lambda row: int(row[axis]))


def markdown(results: Mapping[str, Any]) -> str:
    """Return docs/growth.md."""
    about = results["machine"]
    text = (
        "# What growth costs\n\nMade by `make growth` from `docs/growth.json`; do not edit. What follows from it: "
        "[scaling.md](scaling.md). Two nodes in one driver, one partition each, 1,000 readings a second in all, an MLP "
        "of 16 hidden units, the default settings of a round; in each table one of the four is changed. Cores: "
        "processor time a second. Memory: PSS of the fog driver, the cloud and all executors with their Python "
        "workers. "
        f"Measured once, for {results['seconds']:g} s of each load, after 40 s of warm-up and half as long of the load "
        "itself.\n\n![](growth.png)\n"
    )
    for axis, (title, _) in AXES.items():
        if not (rows := rows_of(results, axis)):
            continue
        names = list(rows[0]["cores"])
        lines = [
            [title, *(f"{name} (cores)" for name in names), "memory (MB)", "weight p50 (ms)", "p95", "a round (s)"]
        ]
        for row in rows:
            cores = [f"{row['cores'][name]:.2f}" for name in names]
            weight = row["weight_ms"]
            times = ["behind"] * 2 if weight["behind"] else [f"{weight[name]:,.0f}" for name in ("p50", "p95")]
            round_seconds = f"{row['round_seconds']:.2f}" if row["round_seconds"] else "-"
            lines.append([f"{row[axis]:,}", *cores, f"{row['memory_mb']:,}", *times, round_seconds])
        lines.insert(1, ["---:"] * len(lines[0]))
        text += f"\n## {title[0].upper()}{title[1:]}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    made = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return text + f"\n{about['cores']} cores ({about['processor']}), {results['runner']} runner; {made}.\n"


def picture(results: Mapping[str, Any], path: Path) -> None:
    """Draw for each axis the cores of each part, and the times of a weight and of a round."""
    figure, panels = plt.subplots(2, len(AXES), figsize=(17, 7), layout="constrained")
    for (axis, (title, _)), (above, below) in zip(AXES.items(), panels.T, strict=True):
        if not (rows := rows_of(results, axis)):
            continue
        x = [row[axis] for row in rows]
        above.stackplot(
            x, [[row["cores"][name] for row in rows] for name in rows[0]["cores"]], labels=rows[0]["cores"], alpha=0.8
        )
        above.set(xscale="log", xlabel=title, ylabel="cores")
        right = above.twinx()
        right.plot(x, [row["memory_mb"] for row in rows], "k.--", label="memory")
        right.set(ylabel="MB", ylim=(0, None))
        for name in ("p50", "p95"):
            in_time = [np.nan if row["weight_ms"]["behind"] else row["weight_ms"][name] for row in rows]
            below.loglog(x, in_time, marker="o", label=f"reading → weight, {name}")
        seconds = [row["round_seconds"] and 1000 * row["round_seconds"] for row in rows]
        below.loglog(x, [value or np.nan for value in seconds], "k.--", label="a round, median")
        below.set(xlabel=title, ylabel="ms")
        for panel in (above, below):
            panel.set_xticks(x, [f"{value:,}" for value in x])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(visible=True, alpha=0.3)
        handles = [panel.get_legend_handles_labels()[0] for panel in (above, right, below)]  # the same in each column
    figure.legend(handles=[*handles[0], *handles[1]], loc="outside upper center", ncols=5)
    figure.legend(handles=handles[2], loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
