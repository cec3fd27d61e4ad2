"""Is a service or a job ready? Asked by Compose's health checks, by `make up` and by `make doctor`.

python -m fedstream.stack.health spark    one question, answered by the exit code; fedstream.stack.wait asks until it is
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedstream import last_word
from fedstream.stack import jobs

BROKER_TIMEOUT_MS = 5000
WORKERS = 2
# A proxy of the shell's is none for the stack's own pages.
_ask_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


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
        _connects(env["SPARK_MASTER_HOST"], int(env["SPARK_MASTER_PORT"]))
    elif name.startswith("spark-worker-"):  # the master misses one that is silent after a minute
        _get(f"http://localhost:{env[_page_variable(name)]}/json/")
    elif name == "history":
        _get(f"http://localhost:{env['SPARK_HISTORY_UI_PORT']}/api/v1/applications")
    elif name == "board":
        _get(f"http://localhost:{env['BOARD_PORT']}/healthz")
    elif name == "prometheus":
        _get(f"http://localhost:{env['PROMETHEUS_PORT']}/api/v1/status/buildinfo")
    elif name == "producer":
        port = int(env["NUMBERS_PORT"])
        if port not in listening_ports():
            msg = f"nothing listens on port {port}"
            raise NotReadyError(msg)
    else:
        page, checkpoints = f"http://localhost:{driver_ui_port(name, env)}", Path(env.get("CHECKPOINT_DIR", "."))
        if word := last_word.read(checkpoints, name):
            raise NotReadyError(word.text)
        said = jobs.read_progress(checkpoints, name)
        trouble = jobs.find_trouble(said, time.time()) if said else None
        if trouble is None or trouble.kind != "silent":  # else its page does not answer, as that of one that starts
            _driver_has_executor(f"{page}/api/v1/applications")
        if trouble:
            raise NotReadyError(jobs.in_words(trouble))


def check_from_outside(name: str, env: Mapping[str, str]) -> None:
    """Ask a container by the port that it has on this host: its own check sees nothing of a network that is cut.

    Raises:
        NotReadyError: it does not answer.
    """
    host = env["BIND_ADDRESS"].replace("0.0.0.0", "localhost")
    port = driver_ui_port(name, env) if has_page(name, env) else env.get(_page_variable(name))
    if name in ("zookeeper", "kafka"):
        _ask(name, {**env, "ZOOKEEPER_HOST": host, "KAFKA_HOST": host, "KAFKA_NETWORK_PORT": env["KAFKA_PORT"]})
    elif port:
        url = f"http://{host}:{port}/"
        try:
            _ask_directly(url, timeout=5).close()
        except OSError as error:
            msg = f"{url}: {error}"
            raise NotReadyError(msg) from error


def _page_variable(service: str) -> str:
    """Return the variable with the port of a service's pages.

    >>> _page_variable("spark-worker-1")
    'SPARK_WORKER_1_UI_PORT'
    """
    return "BOARD_PORT" if service == "board" else f"{service.upper().replace('-', '_')}_UI_PORT"


def has_page(job: str, env: Mapping[str, str]) -> bool:
    """Return whether a job has a driver with web pages: .env has a port for them."""
    return re.fullmatch(r"fog-\d+", job) is not None or job in _jobs_with_port(env)


def driver_ui_port(job: str, env: Mapping[str, str]) -> int:
    """Return the port of a job's web pages: CLOUD_UI_PORT for cloud, FOG_UI_PORT_BASE + N for fog-N.

    Raises:
        ValueError: there is no such job.
    """
    if not has_page(job, env):
        expected = ", ".join(
            ["zookeeper, kafka, topics, spark, producer, board, history, prometheus, fog-N", *_jobs_with_port(env)]
        )
        msg = f"no service or job {job!r}; expected one of {expected}"
        raise ValueError(msg)
    if job.startswith("fog-"):
        return int(env["FOG_UI_PORT_BASE"]) + int(job.removeprefix("fog-"))
    return int(env[_jobs_with_port(env)[job]])


def _jobs_with_port(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variable of each job's port by the job's name; Spark's own programs are no jobs."""
    found = (re.fullmatch(r"(?!SPARK_)(\w+)_UI_PORT", name) for name in env)
    return {match[1].lower().replace("_", "-"): match[0] for match in found if match}


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
        said = (answer.stdout or answer.stderr).strip()[-200:]
        silent = "it takes connections, but gives no right answer: it is paused, or this machine is too busy"
        msg = f"no answer ({said or silent})"
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
        with _ask_directly(url, timeout=5) as response:
            return json.load(response)
    except (OSError, ValueError) as error:
        msg = f"{url}: {error}"
        raise NotReadyError(msg) from error


def _workers_alive(url: str) -> None:
    alive = [worker["id"] for worker in _get(url)["workers"] if worker["state"] == "ALIVE"]
    if len(alive) < WORKERS:
        msg = f"{len(alive)} of {WORKERS} workers ALIVE at {url}"
        raise NotReadyError(msg)


def _connects(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        msg = f"spark://{host}:{port}, where workers and drivers talk to the master: {error}"
        raise NotReadyError(msg) from error


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
    """Check the named parts; exit code 1 at the first that is not ready."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a service (kafka, spark ...) or job (fog-1 ...)")
    for name in parser.parse_args().names:
        try:
            check(name, os.environ)
        except (NotReadyError, ValueError) as error:
            sys.exit(f"{name} is not ready: {error}")


if __name__ == "__main__":
    main()
