"""A real stack of its own for these tests, on the runner that `make` chooses, beside whatever else runs.

STACK=docker: testcontainers starts docker-compose.yml. STACK=local: the local runner. Either way the tests talk to it
as a user does: `make` targets, the scripts in the containers or in `bin/`, Kafka clients on the published port.
Logs of a failed run are kept in the folder test-logs/.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "test-logs"
PREFIX = "fedstream-test-"
ENV = {
    "COMPOSE_PROJECT_NAME": "fedstream-test",
    "CONTAINER_PREFIX": PREFIX,
    "RUN_DIR": ".run-test",
    "ZOOKEEPER_PORT": "12181",
    "KAFKA_PORT": "19092",
    "KAFKA_NETWORK_PORT": "29192",
    "SPARK_MASTER_PORT": "17077",
    "SPARK_MASTER_UI_PORT": "18080",
    "SPARK_WORKER_1_UI_PORT": "18081",
    "SPARK_WORKER_2_UI_PORT": "18082",
    "SPARK_DRIVER_UI_PORT": "14040",
    "SPARK_DRIVER_UI_LAST_PORT": "14043",
    "CLOUD_UI_PORT": "14044",
    "SQUARES_UI_PORT": "14045",
    "SQUARES_KAFKA_UI_PORT": "14046",
    "ALERTS_UI_PORT": "14047",
    "FOG_UI_PORT_BASE": "14050",
    "NUMBERS_PORT": "19999",
    "NODES": "2",
    # Light and rare training, where a test is not about what is learned.
    "LOCAL_EPOCHS": "1",
    "TRAIN_BATCH_SIZE": "512",
    "UPDATE_MIN_READINGS": "1000",
    "UPDATE_MAX_WAIT_SECONDS": "10",
    "REALTIME_INTERVAL_SECONDS": "5",
}


class Stack:
    """A running stack and the ways in which a user reaches it."""

    def __init__(self, runner: str) -> None:
        """Remember the runner."""
        self.runner = runner
        self.bootstrap = f"localhost:{ENV['KAFKA_PORT']}"

    def make(self, *words: str, check: bool = True, **env: str) -> str:
        """Run a make target and return what it printed."""
        done = subprocess.run(
            ["make", *words, f"STACK={self.runner}"],
            cwd=ROOT,
            env=os.environ | ENV | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0 or not check, f"make {' '.join(words)}:\n{done.stdout}"
        return done.stdout

    def run(self, container: str, *command: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command where a user types it: in a container, or in the checkout with bin/ in PATH."""
        if self.runner == "docker":
            variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
            line = ["docker", "exec", "-i", *variables, PREFIX + container, *command]
        else:
            line = ["bash", "-c", 'source deploy/local/env.sh; exec "$@"', "bash", *command]
        return subprocess.run(
            line, cwd=ROOT, env=os.environ | ENV | env, input=text, capture_output=True, text=True, timeout=180
        )

    def python(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the stack's scripts inside the stack."""
        return self.run("spark-master", "python", script, *arguments, **env)

    def log(self, name: str) -> str:
        """Return what a service or job has printed."""
        return self.make("logs", f"S={name}", check=False)

    def kill(self, job: str) -> None:
        """Kill -9 every process of a service or job at once."""
        if self.runner == "docker":
            # From inside: `docker kill` would count as stopped on purpose, and no restart policy would act.
            done = self.run(job, "sh", "-c", "kill -9 -1")
            assert done.returncode in (0, 137), done
        else:
            os.killpg(self._pid(job), signal.SIGKILL)

    def stop(self, service: str) -> None:
        """Stop one service."""
        self._control("stop", service)

    def start(self, service: str) -> None:
        """Start a stopped service."""
        self._control("start", service)

    def _control(self, verb: str, service: str) -> None:
        if self.runner == "docker":
            command = ["docker", verb, PREFIX + service]
        else:
            line = f"supervisorctl -c deploy/local/supervisord.conf {verb} {self._name(service)}"
            command = ["bash", "-c", f"source deploy/local/env.sh; {line}"]
        subprocess.run(command, cwd=ROOT, env=os.environ | ENV, check=verb == "start", capture_output=True, timeout=60)

    def _name(self, job: str) -> str:
        if job.startswith("spark-worker-"):
            return f"spark-worker:{job}"
        return job if job in SERVICES else f"jobs:{job}"

    def _pid(self, job: str) -> int:
        line = f"source deploy/local/env.sh; supervisorctl -c deploy/local/supervisord.conf pid {self._name(job)}"
        return int(subprocess.check_output(["bash", "-c", line], cwd=ROOT, env=os.environ | ENV, text=True))

    def records(self, topic: str, start: int = 0, number: int = 0) -> list[Any]:
        """Return the records now on a topic's partition of this number, from an offset on."""
        with KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False) as consumer:
            partition = TopicPartition(topic, number)
            consumer.assign([partition])
            end = consumer.end_offsets([partition])[partition]
            consumer.seek(partition, start)
            found: list[Any] = []
            while consumer.position(partition) < end:
                for batch in consumer.poll(timeout_ms=1000).values():
                    found += batch
            return found

    def end_offset(self, topic: str) -> int:
        """Return how many records a topic's only partition has ever had."""
        with KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False) as consumer:
            partition = TopicPartition(topic, 0)
            return int(consumer.end_offsets([partition])[partition])

    def messages(self, topic: str, start: int = 0) -> list[dict[str, Any]]:
        """Return the JSON messages now on a topic."""
        return [json.loads(record.value) for record in self.records(topic, start)]

    def node_messages(self, node: int) -> list[dict[str, Any]]:
        """Return all a node has sent; the topic also holds what the tests of bad updates have sent."""
        key = f"fog-{node}".encode()
        return [json.loads(record.value) for record in self.records("model-weights") if record.key == key]

    def updates(self, node: int) -> list[dict[str, Any]]:
        """Return a node's running weights."""
        return [message for message in self.node_messages(node) if "round" not in message]

    def learned(self, node: int) -> list[dict[str, Any]]:
        """Return a node's updates of rounds, each once however often it was sent."""
        updates = {message["trained_at"]: message for message in self.node_messages(node) if "round" in message}
        return list(updates.values())

    def rounds(self) -> list[dict[str, Any]]:
        """Return the models that opened a round, each once however often it was sent, in order."""
        models = [message for message in self.messages("global-model") if "round" in message]
        return list({(message["run_id"], message["round"]): message for message in models}.values())

    def weights(self) -> list[dict[str, Any]]:
        """Return the global weights."""
        return [json.loads(record.value) for record in self.records("global-model") if record.key == b"weight"]

    def samples(self, node: int) -> int:
        """Return the `samples` of a node's newest update, 0 before the first."""
        updates = self.updates(node)
        return updates[-1]["samples"] if updates else 0

    def model(self) -> dict[str, Any]:
        """Return the newest global weight, one without samples before the first."""
        return (self.weights() or [{"samples": 0}])[-1]

    def send(self, topic: str, *values: bytes | None) -> None:
        """Put values on a topic as they are."""
        with KafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=2_000_000) as producer:
            for value in values:
                producer.send(topic, value=value, key=b"test").get(timeout=30)

    def get(self, port: str, path: str) -> Any:
        """Return a JSON answer of one of Spark's web servers."""
        with urllib.request.urlopen(f"http://localhost:{ENV.get(port, port)}{path}", timeout=10) as response:
            return json.load(response)


def eventually(what: str, observe: Callable[[], Any], good: Callable[[Any], bool], timeout_seconds: float = 150) -> Any:
    """Observe until it is good and return it; fail with what was seen last."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        seen = observe()
        if good(seen):
            return seen
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_seconds:g} s; last seen: {seen!r:.2000}")
        time.sleep(0.2)  # between two observations


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Start an empty stack, keep the logs of all its parts, and remove it."""
    runner = os.environ.get("STACK", "local")
    if runner == "docker":
        os.environ |= ENV  # testcontainers hands its own environment on to Compose
        compose = DockerCompose(ROOT, build=True, wait=True, profiles=["jobs"], services=SERVICES)
        stack = Stack(runner)
        stack.make("clean")
        compose.start()
    else:
        stack = Stack(runner)
        stack.make("clean")
        stack.make("up")
    try:
        yield stack
    finally:
        keep_logs(stack)
        stack.make("clean")


JOBS = ["sensors", "fog-1", "fog-2", "cloud", "squares", "bridge", "squares-kafka", "alerts"]
SERVICES = ["zookeeper", "kafka", "topics", "spark-master", "spark-worker-1", "spark-worker-2", "producer"]


def keep_logs(stack: Stack) -> None:
    """Copy the logs of all services and jobs to test-logs/."""
    folder = LOGS / stack.runner
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in [*SERVICES, *JOBS]:
        (folder / f"{name}.log").write_text(stack.log(name))
