"""Time and CPU from a start to its first result, on the bench's own stack of the local runner.

    fog     `make run-fog` with two nodes -> the first weight of each on model-weights
    submit  `spark-submit` of the squares job -> its first micro-batch

Every start has fresh checkpoints; readings and numbers wait for it. CPU seconds are user + system of all processes of
the stack and of the command, by role.

Examples:
    PYTHONPATH=. .venv-bench/bin/python bench/startup.py --runs 5
    CLASS_ARCHIVE= PYTHONPATH=. .venv-bench/bin/python bench/startup.py        (without the archive of classes)
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import click
import psutil
from load import Generator
from measures import median_and_spread
from processes import with_descendants
from rivals import end_group, launch
from stack import BOOTSTRAP, LOGS, PORTS, ROOT, RUN_DIR, RUNNER, inside, make, standing
from topics import Topics

from fedstream.errors import StackError
from fedstream.messages.topics import MODEL_WEIGHTS, sensor_topic
from fedstream.settings import command_help

NODES = (1, 2)
TIMEOUT_SECONDS = 300.0
# A part of a command line, and the role of a process that has it; the first that is found counts.
ROLES = {
    "CoarseGrainedExecutorBackend": "executor JVM",
    "deploy.SparkSubmit": "driver JVM",
    "pyspark.daemon": "executor Python",
    "fog_node.py": "driver Python",
    "socket_stream/consumer.py": "driver Python",
}


def cpu_seconds(roots: list[psutil.Process]) -> Counter[str]:
    """Return the CPU seconds by role of process trees, with those of children that have ended."""
    used: Counter[str] = Counter()
    for process in with_descendants(roots):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        role = next((role for part, role in ROLES.items() if part in line), "others")
        used[role] += times.user + times.system + times.children_user + times.children_system
    return used


def run(command: list[str], is_done: Callable[[str], bool]) -> dict[str, float]:
    """Start a command; return the seconds and CPU seconds by role until it is done by what it printed; then end it.

    Raises:
        StackError: it was not done in time.
    """
    supervisor = psutil.Process(int((ROOT / RUN_DIR / "supervisord.pid").read_text()))
    before, log, begin = cpu_seconds([supervisor]), LOGS / "startup.log", time.monotonic()
    process = launch(command, log)
    try:
        while not is_done(log.read_text(errors="replace")):
            if time.monotonic() - begin > TIMEOUT_SECONDS:
                raise StackError(f"{' '.join(command)}: not done within {TIMEOUT_SECONDS:g} s; see {log}")
            time.sleep(0.1)
        seconds = time.monotonic() - begin
        used = cpu_seconds([supervisor, psutil.Process(process.pid)]) - before
    finally:
        end_group(process)
    return {"seconds": seconds, "CPU": sum(used.values())} | dict(sorted(used.items()))


def fog(topics: Topics) -> dict[str, float]:
    """Measure `make run-fog` until both nodes have sent a weight."""
    shutil.rmtree(ROOT / RUN_DIR / "checkpoints", ignore_errors=True)
    starts = topics.ends(MODEL_WEIGHTS)

    def is_done(_: str) -> bool:
        nodes = set()
        if topics.ends(MODEL_WEIGHTS) != starts:
            topics.records(MODEL_WEIGHTS, starts, lambda record, _: nodes.add(json.loads(record.value())["node_id"]))
        return len(nodes) == len(NODES)

    return run(["make", "run-fog"], is_done)


def submit(_: Topics) -> dict[str, float]:
    """Measure `spark-submit` of the squares job until its first micro-batch."""
    page = f"spark.ui.port={PORTS['SQUARES_UI_PORT']}"
    command = inside("spark-submit", "--conf", page, "socket_stream/consumer.py")
    return run(command, lambda printed: "Time:" in printed)


MEASURES = {"fog": fog, "submit": submit}


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--only", type=click.Choice(list(MEASURES)), help="One of the two.")
def main(runs: int, only: str | None) -> None:
    """Print each start as a JSON line, then medians with the smallest and largest."""
    if RUNNER != "local":
        raise StackError(f"STACK is {RUNNER!r}; expected local, where each process can be told from the others")
    LOGS.mkdir(exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {}
    with standing():
        with closing(Generator("weights", BOOTSTRAP, [sensor_topic(node) for node in NODES], 1)) as generator:
            generator.send(0, 200)
        with closing(Topics(BOOTSTRAP)) as topics:
            topics.use_broker_time(MODEL_WEIGHTS)
            for name in [*([only] if only else MEASURES)] * runs:
                figures = MEASURES[name](topics)
                make("stop-jobs")
                found.setdefault(name, []).append(figures)
                print(
                    json.dumps({"measure": name} | {key: round(value, 2) for key, value in figures.items()}), flush=True
                )
    print(f"\narchive of classes: {os.environ.get('CLASS_ARCHIVE', 'as the stack has it') or 'none'}\n")
    print("| start | figure | median | smallest | largest |\n| --- | --- | ---: | ---: | ---: |")
    for name, starts in found.items():
        for key in starts[0]:
            cells = median_and_spread([start.get(key, 0.0) for start in starts]) or {}
            print(f"| {name} | {key} | {cells['median']:.1f} | {cells['min']:.1f} | {cells['max']:.1f} |")


if __name__ == "__main__":
    main()
