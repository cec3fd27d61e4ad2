"""Is a service or a job ready? Asked by Compose's health checks, by `make up` and by `make doctor`.

Examples:
    python -m fedstream.stack.health spark                      one question, answered by the exit code
    python -m fedstream.stack.health --timeout 120 kafka spark  wait for both and say how long each took
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BROKER_TIMEOUT_MS = 5000
WORKERS = 2
DRIVERS = ("cloud", "squares", "squares-kafka", "alerts")  # and fog-N


class NotReadyError(RuntimeError):
    """A part is not ready; the text says what it answered."""


class StartingError(NotReadyError):
    """A driver's page does not answer, or it has had no executor yet."""


def check(name: str, env: Mapping[str, str]) -> None:
    """Ask a service or job of the stack whether it can do its work.

    Raises:
        NotReadyError: it cannot, or not yet.
        ValueError: there is no such part.
    """
    if name in ("zookeeper", "kafka"):
        _ask(name, env)
    elif name == "topics":
        _topics_exist(env)
    elif name == "spark":
        _workers_alive(f"http://{env['SPARK_MASTER_HOST']}:{env['SPARK_MASTER_UI_PORT']}/json/")
    elif name == "producer":
        port = int(env["NUMBERS_PORT"])
        if port not in listening_ports():
            msg = f"nothing listens on port {port}"
            raise NotReadyError(msg)
    else:
        _driver_has_executor(f"http://localhost:{driver_ui_port(name, env)}/api/v1/applications")


def driver_ui_port(job: str, env: Mapping[str, str]) -> int:
    """Return the port of a job's web pages.

    Raises:
        ValueError: there is no such job.
    """
    if job.startswith("fog-") and job[4:].isdigit():
        return int(env["FOG_UI_PORT_PREFIX"] + job[4:])
    if job in DRIVERS:
        return int(env[f"{job.upper().replace('-', '_')}_UI_PORT"])
    jobs = " or ".join(DRIVERS)
    msg = f"no service or job {job!r}; expected zookeeper, kafka, topics, spark, producer, fog-N, {jobs}"
    raise ValueError(msg)


def listening_ports() -> dict[int, str]:
    """Return each local TCP port in state LISTEN with its socket's inode (Linux)."""
    ports = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == "0A":
                    ports[int(local.rsplit(":", 1)[1], 16)] = rest[5]
    return ports


def _ask(name: str, env: Mapping[str, str]) -> None:
    script = Path(__file__).parents[2] / "deploy" / "kafka" / "ask.sh"
    try:
        answer = subprocess.run([str(script), name], env=dict(env), capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired as error:
        msg = "no answer within 10 s"
        raise NotReadyError(msg) from error
    if answer.returncode != 0 or (name == "zookeeper" and answer.stdout != "imok"):
        msg = f"no answer ({(answer.stdout or answer.stderr).strip()[-200:]})"
        raise NotReadyError(msg)


def _topics_exist(env: Mapping[str, str]) -> None:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from fedstream.broker.kafka import stack_topics

    brokers = env["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        with KafkaAdminClient(bootstrap_servers=brokers, bootstrap_timeout_ms=BROKER_TIMEOUT_MS) as admin:
            found = admin.list_topics()
    except KafkaError as error:  # a busy machine's broker may need longer than that
        msg = f"no answer from {brokers} ({error})"
        raise NotReadyError(msg) from error
    if missing := sorted(set(stack_topics(int(env["NODES"]))) - set(found)):
        msg = f"missing: {', '.join(missing)}"
        raise NotReadyError(msg)


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return json.load(response)
    except (OSError, ValueError) as error:
        msg = f"{url}: {error}"
        raise NotReadyError(msg) from error


def _workers_alive(url: str) -> None:
    alive = [worker["id"] for worker in _get(url)["workers"] if worker["state"] == "ALIVE"]
    if len(alive) < WORKERS:
        msg = f"{len(alive)} of {WORKERS} workers ALIVE at {url}"
        raise NotReadyError(msg)


def _driver_has_executor(url: str) -> None:
    try:
        executors = [each for app in _get(url) for each in _get(f"{url}/{app['id']}/allexecutors")]
    except NotReadyError as error:
        raise StartingError(str(error)) from error
    executors = [each for each in executors if each["id"] != "driver"]
    if any(executor["isActive"] for executor in executors):
        return
    if executors:
        msg = f"no executor any more at {url}: the Spark master or its workers were lost (make ps)"
        raise NotReadyError(msg)
    msg = f"no executor yet at {url}: the master may have no free cores or memory"
    raise StartingError(msg)


def wait(name: str, env: Mapping[str, str], timeout_seconds: float) -> float:
    """Ask until the part is ready and return how many seconds that took.

    Raises:
        TimeoutError: it was not ready in time; the text names the part and what it answered last.
    """
    begin = time.monotonic()
    while True:
        try:
            check(name, env)
            return time.monotonic() - begin
        except NotReadyError as error:
            if time.monotonic() - begin >= timeout_seconds:
                msg = f"{name} is not ready after {timeout_seconds:g} s: {error}"
                raise TimeoutError(msg) from error
            time.sleep(0.3)


def log_end(name: str, env: Mapping[str, str], lines: int = 30) -> str:
    """Return the last lines a part has logged in the local runner, or nothing."""
    logs = Path(env.get("RUN_PATH", ".run")) / "logs"
    names = ["spark-master", "spark-worker-1", "spark-worker-2"] if name == "spark" else [name]
    parts = []
    for log in (logs / f"{name}.log" for name in names):
        if log.exists():
            end = log.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- end of {log}", *end]))
    return "\n".join(parts)


def main() -> None:
    """Check or wait for the named parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a service (kafka, spark ...) or job (fog-1 ...)")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="wait that long [default: 0]")
    options = parser.parse_args()
    for name in options.names:
        try:
            took = wait(name, os.environ, options.timeout)
        except (TimeoutError, ValueError) as error:
            print(f"{error}\n{log_end(name, os.environ)}".strip(), file=sys.stderr)
            sys.exit(1)
        print(f"  {name:<12} ready ({took:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
