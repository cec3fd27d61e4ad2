"""This project's jobs beside every rival, on one machine in one run: latency, throughput, errors, CPU, memory.

Starts a stack of its own, and in turn each contestant on it: first with a back-log to catch up on, then with steady
loads from a generator outside it. Input and output topics carry the broker's LogAppendTime, the one clock of all.
A full run of all contestants goes to docs/; a quick or partial one to .run-bench-logs/, with the contestants' logs.
A contestant that cannot take part ends the run with an error that names it.

Examples:
    make bench BENCH=quick
    make bench BENCH=full STACK=docker
    make bench ARGS="--only real-time --only Flink --workload squares --warm-up 60"
    make bench BENCH=full ARGS="--workload squares --resume"
    make bench ARGS="--workload weights --only 'fog node' --backlog 20000000"
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import contest
import numpy as np
import plots
import report
import rivals
from contest import BACKLOG_PARTITIONS, BACKLOG_TOPICS, Bench
from load import Generator
from measures import Floats, running_weights
from plan import (
    PLANS,
    STACK_SECONDS,
    WORKLOADS,
    Contestant,
    begin_or_resume,
    chosen,
    estimate_seconds,
    fitted,
    remaining,
    turns,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from stack import BOOTSTRAP, BOOTSTRAP_INSIDE, LOGS, ROOT, RUNNER, kafka_tool, standing
from topics import Topics

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.messages.rounds import global_model
from fedstream.messages.topics import ALERTS, GLOBAL_MODEL, MODEL_WEIGHTS
from fedstream.settings import Settings, command_help

LEAST_RATE = 100_000.0  # messages a second, at which a back-log of any size is caught up on in the time given
SETTINGS = Settings(kafka_bootstrap_servers=BOOTSTRAP)


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the programs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_gb": round(gigabytes),
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(contestants: list[Contestant]) -> dict[str, str]:
    """Return the version of each package that takes part, and of the broker."""
    dotenv = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if "=" in line)
    found = {"broker": dotenv["KAFKA_VERSION"], "Python": platform.python_version()}
    for name in sorted({package for each in contestants for package in each.packages}):
        if name == "spark":
            found[name] = dotenv["SPARK_VERSION"]
        elif jars := sorted(rivals.JAVA.glob(f"lib/{name}-[0-9]*.jar")):
            found[name] = jars[0].stem.removeprefix(f"{name}-")
        else:
            found[name] = version(name)
    return found


def prepare_backlog(bench: Bench, workload: str) -> None:
    """Put the messages to catch up on into their topic."""
    count = dict(bench.plan.backlog)[workload]
    topic = BACKLOG_TOPICS[workload]
    bench.topics.create(BACKLOG_PARTITIONS, topic)
    generator = Generator(workload, BOOTSTRAP, [topic], BACKLOG_PARTITIONS)
    generator.send(0, count)
    generator.close()
    if workload == "alerts":
        bench.model = serve_model()
    if workload == "weights":
        _, readings = bench.topics.columns(topic, [0] * BACKLOG_PARTITIONS, "temperature", "vibration")
        bench.backlog_weight = float(running_weights(*readings)[-1])


def serve_model(version: int = 1) -> dict[str, Floats]:
    """Publish a version of the global model, an MLP with 16 hidden units and random weights; return its arrays."""
    random = np.random.default_rng(version)
    shapes = {"coefs_0": (2, 16), "intercepts_0": (16,), "coefs_1": (16, 1), "intercepts_1": (1,)}
    arrays = {name: random.normal(0, 0.05, shape) for name, shape in shapes.items()}
    model = global_model("bench", version, version, arrays)
    kafka.connect_publisher(SETTINGS)((GLOBAL_MODEL, "mlp", model))
    return arrays


def ceiling(bench: Bench, workload: str) -> dict[str, Any]:
    """Return how fast Kafka's own tool reads the back-log, doing nothing with it."""
    count = dict(bench.plan.backlog)[workload]
    where = ["--bootstrap-server", BOOTSTRAP_INSIDE, "--topic", BACKLOG_TOPICS[workload]]
    printed = kafka_tool("kafka-consumer-perf-test", *where, "--messages", str(count), "--timeout", "60000")
    lines = [line for line in printed.splitlines() if line.count(",") >= 5]
    try:
        (row,) = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
        return {
            "workload": workload,
            "per_second": float(row["fetch.nMsg.sec"]),
            "messages": int(row["data.consumed.in.nMsg"]),
        }
    except (ValueError, KeyError) as error:
        msg = f"kafka-consumer-perf-test printed {printed!r}; expected a header with fetch.nMsg.sec and one row"
        raise StackError(msg) from error


def run_all(
    bench: Bench,
    contestants: list[Contestant],
    later: list[Contestant],
    results: dict[str, Any],
    save: Callable[[], None],
    progress: Progress,
    limit: float,
) -> None:
    """Run all repetitions of one workload, and save after each turn.

    Args:
        bench: the plan, whose loads get shorter when time runs out.
        contestants: of the workload.
        later: turns of the workloads that come after it.
        results: of the workload, to which turns are added; those that it has are not run again.
        save: called after each turn.
        progress: shows them.
        limit: when all turns shall be over (s of the monotonic clock).
    """
    plan, (workload,) = bench.plan, {each.workload for each in contestants}
    done = {(entry["repetition"], entry["contestant"]) for entry in results["runs"]}
    order_of_all = remaining(turns(contestants, plan.repetitions), done)
    left = [contestant for order in order_of_all for contestant in order]
    if not left:
        return
    task = progress.add_task(f"{workload}: back-log", total=2 * len(left))
    left += later
    prepare_backlog(bench, workload)
    for repetition, order in enumerate(order_of_all, start=1):
        if not order:
            continue
        progress.update(task, description=f"{repetition}: ceiling of {workload}")
        if len(results["ceiling"]) < repetition:
            results["ceiling"].append(ceiling(bench, workload))
        for contestant in order:
            bench.plan = fitted(plan, left, limit - time.monotonic())
            left.pop(0)
            name = f"{repetition}: {contestant.workload} by {contestant.name}"
            progress.update(task, description=f"{name}, catching up")
            entry: dict[str, Any] = {"workload": contestant.workload, "contestant": contestant.name}
            entry |= {"repetition": repetition, "load_seconds": round(bench.plan.load_seconds, 1)}
            entry["catch_up"] = contest.catch_up(bench, contestant)
            progress.update(task, description=f"{name}, steady loads", advance=1)
            entry |= contest.steady_loads(bench, contestant, entry["catch_up"]["per_second"])
            progress.advance(task)
            results["runs"].append(entry)
            save()
            bench.say(report.headline(entry))
    bench.plan = plan


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", type=click.Choice(sorted(PLANS)), default="quick", show_default=True, envvar="BENCH")
@click.option("--only", multiple=True, help="Contestant, by its name in the table; more than one is possible.")
@click.option("--workload", type=click.Choice(WORKLOADS), help="Only this one.")
@click.option(
    "--warm-up", "warm_up_seconds", type=click.FloatRange(1), help="Seconds before the loads; else the plan's."
)
@click.option("--backlog", type=click.IntRange(1), help="Messages to catch up on, with time for all; else the plan's.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--resume", is_flag=True, help="Go on with a run that was broken off: its turns are kept.")
def main(
    size: str,
    only: tuple[str, ...],
    workload: str | None,
    warm_up_seconds: float | None,
    backlog: int | None,
    output: Path | None,
    resume: bool,
) -> None:
    """Run the bench and print its table."""
    plan, console = PLANS[size], Console()
    if warm_up_seconds:
        plan = replace(plan, warm_up_seconds=warm_up_seconds, long_warm_up_seconds=warm_up_seconds)
    if backlog:
        sizes = tuple((name, backlog) for name in WORKLOADS)
        limit_seconds = PLANS["full"].limit_seconds
        plan = replace(plan, backlog=sizes, catch_up_seconds=backlog / LEAST_RATE, limit_seconds=limit_seconds)
    try:
        contestants = chosen(only, [workload] if workload else WORKLOADS)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    is_whole = plan == PLANS["full"] and not only
    folder = output or (ROOT / "docs" if is_whole else LOGS)
    folder.mkdir(parents=True, exist_ok=True)
    expected = estimate_seconds(plan, contestants)
    console.print(
        f"{plan.name} bench on the {RUNNER} runner: {len(contestants)} contestants, {plan.repetitions} repetition(s), "
        f"about {expected / 60:.0f} minutes in all (limit {plan.limit_seconds / 60:.0f})"
    )
    file, begin = folder / "performance.json", time.monotonic()
    limit = begin + plan.limit_seconds - STACK_SECONDS / 2
    # A whole run of one workload leaves the others' results in place.
    measured: report.Measured = json.loads(file.read_text()) if (is_whole or resume) and file.exists() else {}

    def begin_workload(own: list[Contestant]) -> dict[str, Any]:
        about = {"plan": plan.name, "runner": RUNNER, "machine": machine(), "versions": versions(own)}
        about["started"] = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            return begin_or_resume(measured.get(own[0].workload) if resume else None, about)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    groups = [own for name in WORKLOADS if (own := [each for each in contestants if each.workload == name])]
    begun = [begin_workload(own) for own in groups]  # a run of another kind is told before anything is started

    def save() -> None:
        file.write_text(json.dumps(measured, indent=1) + "\n")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with standing():
        for contestant in contestants:  # what is missing is told before an hour has passed
            rivals.command(rivals.Run(contestant, 0, ("source",), "target", 1, "latency", (0,)))
        with closing(Topics(BOOTSTRAP)) as topics, Progress(*columns, console=console) as progress:
            kafka.ensure_topics(SETTINGS, [ALERTS])
            topics.use_broker_time(MODEL_WEIGHTS)
            topics.use_broker_time(ALERTS)
            bench = Bench(plan, topics, progress.console.print)
            for number, own in enumerate(groups):
                results = measured[own[0].workload] = begun[number]
                later = [each for group in groups[number + 1 :] for each in group] * plan.repetitions
                run_all(bench, own, later, results, save, progress, limit)
    measured = {name: measured[name] for name in WORKLOADS if name in measured}  # in this order, whatever was run last
    save()
    (folder / "performance-table.md").write_text(report.markdown(measured))
    plots.draw(measured, folder)
    report.show(measured, console)
    seconds = time.monotonic() - begin
    console.print(
        f"{seconds / 60:.1f} minutes; results: {file}; all loads, spread and remarks: performance-table.md beside it; "
        "plots: performance-latency.png, -throughput.png"
    )
    if seconds > plan.limit_seconds:
        raise StackError(f"the bench took {seconds:.0f} s; expected at most {plan.limit_seconds:g} s")


if __name__ == "__main__":
    main()
