"""The bench's own stack, on either runner, beside one of yours: how to start it, run things in it, and end it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedstream.errors import StackError as StackError

ROOT = Path(__file__).parents[2]
BASE = int(os.environ.get("BENCH_PORT", "23100"))  # all ports of the stack lie in the hundred from here on
PORTS = {
    f"{name}_PORT": BASE + number
    for number, name in enumerate((
        "ZOOKEEPER", "KAFKA", "KAFKA_NETWORK", "SPARK_MASTER", "SPARK_MASTER_UI", "SPARK_WORKER_1_UI",
        "SPARK_WORKER_2_UI", "SPARK_HISTORY_UI", "CLOUD_UI", "SQUARES_UI", "SQUARES_KAFKA_UI", "ALERTS_UI", "NUMBERS",
        "FEED", "BOARD", "PROMETHEUS", "GRAFANA", "SPARK_DRIVER_UI",
    ))
}  # fmt: skip
PORTS["SPARK_DRIVER_UI_LAST_PORT"] = PORTS["SPARK_DRIVER_UI_PORT"] + 3
FOG_NUMBERS = range(50, 100)  # numbers of the bench's fog nodes: their pages get the upper half of the hundred ports
RUNNER = os.environ.get("STACK", "local")
PREFIX = "fedstream-bench-"
RUN_DIR = ".run-bench"
ENV = {name: str(port) for name, port in PORTS.items()} | {
    "STACK": RUNNER,
    "RUN_DIR": RUN_DIR,
    "COMPOSE_PROJECT_NAME": "fedstream-bench",
    "CONTAINER_PREFIX": PREFIX,
    "FOG_UI_PORT_BASE": str(BASE),
}
BOOTSTRAP = f"localhost:{PORTS['KAFKA_PORT']}"  # for programs on the host
if RUNNER == "local":  # of the user's own stack, if it is set
    ENV["KAFKA_BOOTSTRAP_SERVERS"] = BOOTSTRAP
BOOTSTRAP_INSIDE = f"kafka:{PORTS['KAFKA_NETWORK_PORT']}" if RUNNER == "docker" else BOOTSTRAP
DATA = "/data" if RUNNER == "docker" else f"{ROOT}/{RUN_DIR}/data"  # as the stack's jobs see it
LOGS = ROOT / f"{RUN_DIR}-logs"


def execute(*line: str, timeout_seconds: float = 900) -> str:
    """Run a command in the bench's environment, and return what it printed.

    Raises:
        StackError: it failed; the text holds what it printed.
    """
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout_seconds)
    if done.returncode:
        msg = f"{shlex.join(line)} (runner {RUNNER}, ports from {BASE}) failed:\n{done.stdout}{done.stderr}"
        raise StackError(msg)
    return done.stdout


def make(*words: str) -> None:
    """Run a make target of the bench's stack; raises StackError if it fails."""
    execute("make", *words)


@contextmanager
def standing() -> Iterator[None]:
    """Have the bench's stack up, and nothing in it at first; afterwards, however it ends, take it down.

    A contestant runs in a process group of its own, which only `finally` ends: so SIGTERM raises SystemExit here.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM; what ran for it is being stopped"))
    try:
        make("clean")
        make("up")
        yield
    finally:
        make("clean")


def inside(*command: str, name: str | None = None, **variables: str) -> list[str]:
    """Return the command line that runs a program inside the stack, in the foreground, with environment variables.

    With a name it runs in a container of its own (Docker runner), to be ended by `docker stop`.
    """
    if RUNNER == "local":
        exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
        line = f'source deploy/local/env.sh; {exports and f"export {exports};"} exec "$@"'
        return ["bash", "-c", line, "bash", *command]
    options = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
    if name is None:
        return ["docker", "exec", "-i", *options, f"{PREFIX}spark-master", *command]
    options += ["-v", f"{ROOT}/bench/rivals/contestants:/app/bench/rivals/contestants:ro"]
    run = ["docker", "compose", "--profile", "jobs", "run", "--rm", "-T", "--no-deps", "--name", PREFIX + name]
    return [*run, *options, "fog-1", *command]


def kafka_tool(*command: str) -> str:
    """Run one of Kafka's tools where the broker is, and return what it printed; raises StackError if it fails."""
    return execute(*(inside(*command) if RUNNER == "local" else ["docker", "exec", f"{PREFIX}kafka", *command]))


def wait_until(what: str, observe: Callable[[], Any], timeout_seconds: float, every_seconds: float = 0.2) -> Any:
    """Observe until there is something, and return it.

    Raises:
        StackError: there was nothing in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (seen := observe()):
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout_seconds:g} s"
            raise StackError(msg)
        time.sleep(every_seconds)
    return seen


def environment() -> dict[str, str]:
    """Return the environment in which the bench's commands run: without what a make around it would hand on."""
    handed_on = {name for name in os.environ if name.startswith("MAKE")} | {"MFLAGS", "ARGS"}
    return {name: value for name, value in os.environ.items() if name not in handed_on} | ENV
