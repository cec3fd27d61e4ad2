"""This project's jobs beside every rival, on one machine in one run: latency, throughput, errors, CPU, memory.

Starts a stack of its own, and in turn each contestant on it: first with a back-log to catch up on, then with a steady
load from a generator outside it. Input and output topics carry the broker's LogAppendTime, the one clock of all.
A quick run takes some 8 minutes, a full one some 90: it goes to bench/results/, another one to .run-bench-logs/, where
the contestants' logs are. A contestant that cannot take part ends the run with an error that names it.

Examples:
    make bench BENCH=quick
    make bench BENCH=full STACK=docker
    make bench ARGS="--only real-time --only Flink --workload squares"
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.lab.jobs import ALERTS, MODEL_WEIGHTS, Command, ensure_topics, serve_model
from bench.lab.load import Generator
from bench.lab.machine import about, file_for, save
from bench.lab.measures import running_weights
from bench.lab.stack import BOOTSTRAP, BOOTSTRAP_INSIDE, RUNNER, StackError, kafka_tool, standing
from bench.lab.topics import Topics
from bench.rivals import contest, plots, report, start
from bench.rivals.contest import BACKLOG_PARTITIONS, BACKLOG_TOPICS, Bench
from bench.rivals.plan import PLANS, WORKLOADS, Contestant, chosen, turns

Results = dict[str, Any]


def prepare_backlog(bench: Bench, workload: str) -> None:
    """Put the messages to catch up on into their topic."""
    topic = BACKLOG_TOPICS[workload]
    bench.topics.create(BACKLOG_PARTITIONS, topic)
    with closing(Generator(workload, BOOTSTRAP, [topic], BACKLOG_PARTITIONS)) as generator:
        generator.send(0, dict(bench.plan.backlog)[workload])
    if workload == "alerts":
        bench.model = serve_model()
    if workload == "weights":
        _, readings = bench.topics.columns(topic, [0] * BACKLOG_PARTITIONS, "temperature", "vibration")
        bench.backlog_weight = float(running_weights(*readings)[-1])


def ceiling(bench: Bench, workload: str) -> float:
    """Return how many messages a second Kafka's own tool reads of the back-log, doing nothing with them."""
    count = dict(bench.plan.backlog)[workload]
    where = ["--bootstrap-server", BOOTSTRAP_INSIDE, "--topic", BACKLOG_TOPICS[workload]]
    printed = kafka_tool("kafka-consumer-perf-test", *where, "--messages", str(count), "--timeout", "60000")
    lines = [line for line in printed.splitlines() if line.count(",") >= 5]
    try:
        (row,) = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
        return float(row["fetch.nMsg.sec"])
    except (ValueError, KeyError) as error:
        msg = f"kafka-consumer-perf-test printed {printed!r}; expected a header with fetch.nMsg.sec and one row"
        raise StackError(msg) from error


def run_all(bench: Bench, own: list[Contestant], found: Results, keep: Callable[[], None], progress: Progress) -> None:
    """Run all repetitions of one workload; add each turn to its results, and keep them."""
    workload, repetitions = own[0].workload, bench.plan.repetitions
    task = progress.add_task(f"{workload}: back-log", total=2 * len(own) * repetitions)
    prepare_backlog(bench, workload)
    for repetition, order in enumerate(turns(own, repetitions), start=1):
        found["ceiling"].append(ceiling(bench, workload))
        for contestant in order:
            name = f"{repetition}: {workload} by {contestant.name}"
            progress.update(task, description=f"{name}, catching up")
            entry = {"workload": workload, "contestant": contestant.name, "repetition": repetition}
            entry["catch_up"] = contest.catch_up(bench, contestant)
            progress.update(task, description=f"{name}, steady load", advance=1)
            entry |= contest.steady_load(bench, contestant)
            progress.advance(task)
            found["runs"].append(entry)
            keep()
            progress.console.print(report.headline(entry), highlight=False, soft_wrap=True)


@click.command(cls=Command, help=__doc__)
@click.option("--size", type=click.Choice(sorted(PLANS)), default="quick", show_default=True, envvar="BENCH")
@click.option("--only", multiple=True, help="Contestant, by its name in the table; more than one is possible.")
@click.option("--workload", type=click.Choice(WORKLOADS), help="Only this one.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results.")
def main(size: str, only: tuple[str, ...], workload: str | None, output: Path | None) -> None:
    """Run the bench and print its tables."""
    plan, console = PLANS[size], Console()
    try:
        contestants = chosen(only, [workload] if workload else WORKLOADS)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    is_whole = size == "full" and not only
    file = file_for("performance", output, is_whole)
    console.print(f"{plan.name} bench on the {RUNNER} runner: {len(contestants)} contestants in turn")
    # A whole run of one workload leaves the others' results in place.
    measured: report.Measured = json.loads(file.read_text()) if is_whole and file.exists() else {}
    bar = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with standing():
        for contestant in contestants:  # what is missing is told before an hour has passed
            start.command(start.Run(contestant, 0, "source", "target", 1, "latency", 0))
        with closing(Topics(BOOTSTRAP)) as topics, Progress(*bar, TimeElapsedColumn(), console=console) as progress:
            ensure_topics(ALERTS)
            topics.use_broker_time(MODEL_WEIGHTS)
            topics.use_broker_time(ALERTS)
            bench = Bench(plan, topics)
            for name in WORKLOADS:
                if own := [each for each in contestants if each.workload == name]:
                    packages = {package for each in own for package in each.packages}
                    measured[name] = {"plan": plan.name} | about(packages, start.JAVA / "lib")
                    measured[name] |= {"ceiling": [], "runs": []}
                    run_all(bench, own, measured[name], lambda: save(file, measured), progress)
    plots.draw(measured, file.with_suffix(".png"))
    report.show(measured, console)
    console.print(f"results: {file}, and a picture beside it")


if __name__ == "__main__":
    main()
