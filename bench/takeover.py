"""How soon a new global model scores the alerts, what an interval's end costs, and what a killed driver scores twice.

Starts a stack of its own. For each REALTIME_INTERVAL_SECONDS, readings come at a steady rate while new versions of the
model are published; then the driver is killed and started again. Every reading must be scored; repeats are counted.

Examples:
    python bench/takeover.py
    python bench/takeover.py --interval 5 --interval 30 --seconds 120
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import click
import contest
import measures
import numpy as np
import report
from compare import SETTINGS, serve_model
from contest import Bench
from load import Generator
from plan import PLANS, chosen
from rich.console import Console
from rich.table import Table
from rivals import Running, start, stop
from stack import BOOTSTRAP, PREFIX, RUNNER, standing
from topics import PLACE, Topics

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.messages.topics import ALERTS
from fedstream.settings import command_help

WARM_UP_SECONDS = 30.0
VERSION_SECONDS = 7.0  # from one version to the next: at all places of an interval
DOWN_SECONDS = 5.0


def kill(running: Running) -> None:
    """Kill a driver as a crash does."""
    if RUNNER == "docker":
        subprocess.run(["docker", "kill", PREFIX + running.run.name], check=True, capture_output=True)
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()


def publish_versions(first: int, seconds: float) -> dict[int, int]:
    """Publish a version every few seconds for so long; return when (ms since 1970)."""
    begin, published, version = time.monotonic(), {}, first
    while time.monotonic() - begin < seconds:
        published[version] = round(1000 * time.time())
        serve_model(version)
        version += 1
        time.sleep(VERSION_SECONDS)
    return published


def measure(bench: Bench, interval: float, rate: float, seconds: float, first: int) -> tuple[dict[str, Any], int]:
    """Measure one interval; return what was found, and the next free version."""
    (contestant,) = chosen(["alerts"], ["alerts"])
    settings = (("REALTIME_INTERVAL_SECONDS", f"{interval:g}"),)
    run, starts = contest.prepare(bench, replace(contestant, settings=settings), "latency", [])
    serve_model(first)
    running = start(run)
    try:
        with closing(Generator("alerts", BOOTSTRAP, run.sources, run.partitions)) as generator:
            generator.send(0, 1)
            contest.wait_for_first(bench, running, starts)
            generator.send(rate, round(rate * WARM_UP_SECONDS))
            steady = generator.sent
            generator.begin(rate, round(rate * seconds))
            published = publish_versions(first + 1, seconds - VERSION_SECONDS)
            generator.finish()
            contest.drain(bench, running, starts, generator.sent)
            calm = generator.sent
            generator.begin(rate, round(rate * (interval + DOWN_SECONDS + 30)))
            time.sleep(interval)
            kill(running)
            time.sleep(DOWN_SECONDS)
            running = start(run)
            generator.finish()
            if (state := contest.drain(bench, running, starts, generator.sent)) != "done":
                raise StackError(f"the alerts are {state}; expected a score of each of {generator.sent} readings")
    finally:
        stop(running)
    sent_ms, _ = bench.topics.columns(run.source, [0])
    at_ms, (place, version) = bench.topics.columns(ALERTS, starts, PLACE, "model_version")
    took = [int(at_ms[version >= number].min()) - at for number, at in published.items()]
    matched = measures.match_each(sent_ms, place + 1, np.ones(len(place), dtype=bool), at_ms)
    if lost := matched.lost + matched.late:
        raise StackError(f"{lost} of {len(sent_ms)} readings have no score")
    in_calm = place < calm
    part = slice(steady, calm)
    return {
        "interval": interval,
        "take_over_s": [statistics.median(took) / 1000, max(took) / 1000],
        "versions": len(took),
        "repeats": int(in_calm.sum()) - len(np.unique(place[in_calm])),
        "repeats_after_kill": int((~in_calm).sum()) - len(np.unique(place[~in_calm])),
        **measures.latencies(sent_ms[part], matched.latency_ms[part], 0, interval),
    }, first + len(took) + 1


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--interval", "intervals", multiple=True, type=click.FloatRange(5), help="Seconds. [default: 5 10 30]")
@click.option("--rate", default=1000.0, show_default=True, help="Readings a second.")
@click.option("--seconds", default=90.0, show_default=True, help="Of the load during which versions are published.")
def main(intervals: tuple[float, ...], rate: float, seconds: float) -> None:
    """Measure each interval and print a table."""
    console, version = Console(), 1
    table = Table("interval (s)", "take-over, p50 (s)", "max", "p50 (ms)", "p95", "p99", "max", "interval's end, max")
    for name in ("repeats", "repeats after a kill"):
        table.add_column(name)
    with standing(), closing(Topics(BOOTSTRAP)) as topics:
        kafka.ensure_topics(SETTINGS, [ALERTS])
        topics.use_broker_time(ALERTS)
        bench = Bench(PLANS["full"], topics, console.print)
        for interval in intervals or (5.0, 10.0, 30.0):
            found, version = measure(bench, interval, rate, seconds, version)
            console.print(found)
            row = [f"{interval:g}", *(f"{value:.1f}" for value in found["take_over_s"])]
            row += [f"{found[name]:,.0f}" for name in ("p50", "p95", "p99", "max", "end_max")]
            table.add_row(*row, f"{found['repeats']:,}", f"{found['repeats_after_kill']:,}")
    report.show_wide(console, table)


if __name__ == "__main__":
    main()
