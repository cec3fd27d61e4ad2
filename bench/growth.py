"""What more nodes, partitions, readings and parameters cost: CPU, memory, and the time to a weight and to a round.

Two fog nodes in one driver train the default model with the cloud, under 1,000 readings a second in all; then one of
the four is changed at a time. Writes growth.json, .md and .png to docs/; docs/scaling.md tells what follows from them.

Examples:
    make growth                              (about 20 minutes, on the chosen runner)
    make growth ARGS="--axis nodes --seconds 60"
    make growth STACK=docker ARGS="--output /tmp/growth"
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import growth_report as report
import measures
import numpy as np
import psutil
import streamed
from compare import machine, versions
from growth_report import AXES, BASE, Point, points
from load import Generator
from plan import chosen
from processes import cpu_seconds, drivers, executors, memory_mb, with_descendants
from rich.console import Console
from stack import BOOTSTRAP, PORTS, ROOT, RUNNER, make
from topics import Topics

from fedstream.messages.topics import MODEL_WEIGHTS, sensor_topic
from fedstream.settings import command_help

LATE_SHARE = 0.01
AFTER_SECONDS = 10.0  # that a load goes on behind the measured time, so that its last readings get their weight, too
COLD_SECONDS = 40.0  # at the base's rate, before the first load: until Java's compilers have seen the jobs


def roles() -> dict[str, list[psutil.Process]]:
    """Return the processes of each part of the stack that the load reaches."""
    port = PORTS["SPARK_MASTER_PORT"]
    cloud = drivers("aggregator.py", port)
    fog_executors: list[psutil.Process] = []
    for process in executors(port):
        line = process.cmdline()
        is_of_cloud = line[line.index("--cores") + 1] == "1"  # a fog driver has at least two slots
        (cloud if is_of_cloud else fog_executors).append(process)
    broker = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "kafka.Kafka" in (line := process.info["cmdline"] or [])
        and any(word.endswith(f":{PORTS['ZOOKEEPER_PORT']}") for word in line)
    ]
    found = {
        "fog driver": drivers("fog_node.py", port),
        "fog executors": fog_executors,
        "cloud": cloud,
        "broker": broker,
    }
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
    jobs = [process for name, processes in found.items() if name != "broker" for process in processes]
    return cores, round(memory_mb(jobs)[0])


def waits(topics: Topics, point: Point, since_ms: int, until_ms: int) -> dict[str, float | None]:
    """Return percentiles (ms) of the time from a reading of node 1, sent in that time, to the first weight with it.

    `behind` are the readings that no weight counts yet, seconds later, unless they are a few.
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


def measure(point: Point, rates: list[int], seconds: float) -> list[dict[str, Any]]:
    """Start the stack for a point and measure it under each of these loads, in ascending order."""
    streamed.run_jobs(
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
                opened, since_ms = len(streamed.rounds()), round(1000 * time.time())
                generator.begin(each, round(each * (seconds + AFTER_SECONDS)))
                cores, memory = used(seconds)
                until_ms = round(1000 * time.time())
                load = generator.finish()
                times = [model["at"] for model in streamed.rounds()[opened:] if model["at"] <= until_ms]
                gaps = [(after - before) / 1000 for before, after in itertools.pairwise(times)]
                found.append(
                    asdict(replace(point, rate=rate))
                    | {"cores": cores, "memory_mb": memory, "rounds": len(times), "late_ms": load["latest_ms"]}
                    | {"round_seconds": round(statistics.median(gaps), 3) if gaps else None}
                    | {"weight_ms": waits(topics, point, since_ms, until_ms)}
                )
    return found


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--axis",
    "axes",
    multiple=True,
    type=click.Choice(list(AXES)),
    help="Only this one, the others' results stay; else all.",
)
@click.option("--seconds", type=click.FloatRange(5), default=20, show_default=True, help="Of each load, measured.")
@click.option(
    "--output", default=ROOT / "docs", type=click.Path(path_type=Path), help="Folder of the results.  [default: docs]"
)
def main(axes: tuple[str, ...], seconds: float, output: Path) -> None:
    """Measure, and write growth.json, .md and .png."""
    console, path = Console(), output / "growth.json"
    output.mkdir(parents=True, exist_ok=True)
    starts: dict[Point, set[int]] = {}  # loads by what they need a start for
    for point in (point for axis in axes or AXES for point in points(axis)):
        starts.setdefault(replace(point, rate=0), set()).add(point.rate)
    results: dict[str, Any] = {"machine": machine(), "versions": versions(chosen(["fog node"], ["weights"]))}
    results |= {"runner": RUNNER, "seconds": seconds, "points": []}
    earlier = json.loads(path.read_text()) if axes and path.exists() else results
    for number, (point, rates) in enumerate(starts.items(), start=1):
        console.print(f"{number} of {len(starts)}: {point}, rates {sorted(rates)}")
        try:
            found = measure(point, sorted(rates), seconds)
        finally:
            make("clean")
        results["points"] += found
        for row in found:
            console.print(
                f"  {row['rate']}/s: {row['cores']}, {row['memory_mb']} MB, {row['weight_ms']}, "
                f"{row['round_seconds']} s a round"
            )
        written = report.added(earlier, results)
        path.write_text(json.dumps(written, indent=1) + "\n")
        (path.parent / "growth.md").write_text(report.markdown(written))
        report.picture(written, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
