"""What more nodes, partitions, readings and parameters cost: CPU, memory, and the time to a weight and to a round.

Two fog nodes in one driver train the default model with the cloud, under 1,000 readings a second in all; then one of
the four is changed at a time. Writes growth.json.

Examples:
    make growth                              (about 20 minutes, on the chosen runner)
    make growth ARGS="--axis nodes --seconds 60"
    make growth STACK=docker ARGS="--output /tmp/growth"
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from bench.lab import jobs, measures
from bench.lab.jobs import MODEL_WEIGHTS, Command, sensor_topic
from bench.lab.load import Generator
from bench.lab.machine import about, conditions, file_for, save
from bench.lab.processes import cpu_seconds, drivers, executors, memory_mb, with_descendants
from bench.lab.stack import BOOTSTRAP, PORTS, make
from bench.lab.tables import print_wide, table
from bench.lab.topics import Topics

LATE_SHARE = 0.01
AFTER_SECONDS = 10.0  # that a load goes on behind the measured time, so that its last readings get their weight, too
COLD_SECONDS = 40.0  # at the base's rate, before the first load: until Java's compilers have seen the jobs
PARTS = ("fog driver", "fog executors", "cloud", "broker")


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
Rows = list[dict[str, Any]]


def points(axis: str) -> list[Point]:
    """Return the points of an axis, in ascending order."""
    return [replace(BASE, **{axis: value}) for value in AXES[axis][1]]


def rows_of(rows: Rows, axis: str) -> Rows:
    """Return the measured points of an axis, in ascending order."""
    wanted = [asdict(point) for point in points(axis)]
    own = [row for row in rows if {name: row[name] for name in asdict(BASE)} in wanted]
    return sorted(own, key=lambda row: int(row[axis]))


def roles() -> dict[str, list[psutil.Process]]:
    """Return the processes of each part of the stack that the load reaches."""
    port = PORTS["SPARK_MASTER_PORT"]
    found: dict[str, list[psutil.Process]] = {name: [] for name in PARTS}
    found |= {"fog driver": drivers("fog_node.py", port), "cloud": drivers("aggregator.py", port)}
    for process in executors(port):
        line = process.cmdline()
        is_of_cloud = line[line.index("--cores") + 1] == "1"  # a fog driver has at least two slots
        found["cloud" if is_of_cloud else "fog executors"].append(process)
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "kafka.Kafka" in line and any(word.endswith(f":{PORTS['ZOOKEEPER_PORT']}") for word in line):
            found["broker"].append(process)
    return {name: with_descendants(processes) for name, processes in found.items()}


def used(seconds: float) -> tuple[dict[str, float], float]:
    """Return the cores that each part uses in that time, and the memory (MB) of fog driver, executors and cloud."""
    before, begin = {name: cpu_seconds(processes) for name, processes in roles().items()}, time.monotonic()
    time.sleep(seconds)
    found = roles()
    took = time.monotonic() - begin
    cores = {
        name: round(measures.used_cpu_seconds(before[name], cpu_seconds(processes)) / took, 3)
        for name, processes in found.items()
    }
    own = [process for name, processes in found.items() if name != "broker" for process in processes]
    return cores, round(memory_mb(own))


def waits(topics: Topics, point: Point, since_ms: int, until_ms: int) -> dict[str, float | None]:
    """Return percentiles (ms) of the time from a reading of node 1, sent in that time, to the first weight with it.

    `behind` are the readings that no weight counts yet, unless they are a few.
    """
    sent_ms, _ = topics.columns(sensor_topic(1), [0] * point.partitions)
    starts = [0] * len(topics.ends(MODEL_WEIGHTS))  # a node's messages are in one of its partitions
    at_ms, (samples,) = topics.columns(MODEL_WEIGHTS, starts, "samples", where=("node_id", "fog-1"))
    # Of several partitions the readings are taken in the order of their times, as the node does within a micro-batch.
    sent_ms = np.sort(sent_ms, kind="stable")
    latency = measures.counted_after(sent_ms, samples.astype(np.int64), at_ms)
    measured = latency[(since_ms <= sent_ms) & (sent_ms <= until_ms)]
    missing = int(np.isnan(measured).sum())
    return measures.percentiles(measured) | {"behind": missing if missing > LATE_SHARE * len(measured) else 0}


def measure(point: Point, rates: Sequence[int], seconds: float) -> Rows:
    """Start the stack for a point and measure it under each of these loads, in ascending order."""
    jobs.run_jobs(
        NODES=point.nodes,
        NODES_PER_DRIVER=point.nodes,
        TOPIC_PARTITIONS=point.partitions,
        MODEL_OPTIONS=f"hidden_units={point.hidden_units}",
    )
    sources = [sensor_topic(number) for number in range(1, point.nodes + 1)]
    found = []
    with closing(Topics(BOOTSTRAP)) as topics:
        for name in (*sources, MODEL_WEIGHTS):
            topics.use_broker_time(name)
        with closing(Generator("weights", BOOTSTRAP, sources, point.partitions)) as generator:
            each = BASE.rate / point.nodes
            generator.send(each, round(each * COLD_SECONDS))
            for rate in sorted(rates):
                each = rate / point.nodes
                generator.send(each, round(each * seconds / 2))
                opened, since_ms = len(jobs.rounds()), round(1000 * time.time())
                generator.begin(each, round(each * (seconds + AFTER_SECONDS)))
                cores, memory = used(seconds)
                until_ms = round(1000 * time.time())
                generator.finish()
                times = [model["at"] for model in jobs.rounds()[opened:] if model["at"] <= until_ms]
                gaps = [(after - before) / 1000 for before, after in itertools.pairwise(times)]
                found.append(
                    asdict(replace(point, rate=rate))
                    | {"cores": cores, "memory_mb": memory, "rounds": len(times)}
                    | {"round_seconds": round(statistics.median(gaps), 3) if gaps else None}
                    | {"weight_ms": waits(topics, point, since_ms, until_ms)}
                )
    return found


def axis_table(rows: Rows, axis: str) -> Table:
    """Return what was measured on an axis."""
    lines = []
    for row in rows_of(rows, axis):
        weight = row["weight_ms"]
        times = ["behind"] * 2 if weight["behind"] else [f"{weight[name]:,.0f}" for name in ("p50", "p95")]
        round_seconds = f"{row['round_seconds']:.2f}" if row["round_seconds"] else "-"
        cores = [f"{row['cores'][name]:.2f}" for name in PARTS]
        lines.append([f"{row[axis]:,}", *cores, f"{row['memory_mb']:,}", *times, round_seconds])
    headings = [f"{name} (cores)" for name in PARTS] + ["memory (MB)", "weight p50 (ms)", "p95", "a round (s)"]
    return table(AXES[axis][0], ["", *headings], lines)


@click.command(cls=Command, help=__doc__)
@click.option("--axis", "axes", multiple=True, type=click.Choice(list(AXES)), help="Only this one; else all.")
@click.option("--seconds", type=click.FloatRange(5), default=20, show_default=True, help="Of each load, measured.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results.")
def main(axes: tuple[str, ...], seconds: float, output: Path | None) -> None:
    """Measure, print the tables, and write growth.json."""
    console, path = Console(), file_for("growth", output, is_whole=not axes)
    starts: dict[Point, set[int]] = {}  # loads by what they need a start for
    for point in (point for axis in axes or AXES for point in points(axis)):
        starts.setdefault(replace(point, rate=0), set()).add(point.rate)
    results: dict[str, Any] = about(["spark"]) | {"seconds": seconds, "points": []}
    for number, (point, rates) in enumerate(starts.items(), start=1):
        console.print(f"{number} of {len(starts)}: {point}, rates {sorted(rates)}")
        try:
            results["points"] += measure(point, sorted(rates), seconds)
        finally:
            make("clean")
        save(path, results)
    for axis in axes or AXES:
        print_wide(console, axis_table(results["points"], axis))
    console.print(conditions(results), f"results: {path}", sep="\n", highlight=False)


if __name__ == "__main__":
    main()
