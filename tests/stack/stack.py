"""The stack under test, as a user reaches it: `make` targets, scripts in containers or in `deploy/bin/`, Kafka clients.

It has names, ports and a folder of its own, so that it runs beside whatever else runs on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "test-logs"
PREFIX = "fedstream-test-"
SUPERVISORCTL = "source deploy/local/env.sh; supervisorctl -c deploy/local/supervisord.conf"
PORTS = {
    "ZOOKEEPER_PORT": 12181,
    "KAFKA_PORT": 19092,
    "KAFKA_NETWORK_PORT": 29192,
    "KAFKA_METRICS_PORT": 29404,
    "SPARK_MASTER_PORT": 17077,
    "SPARK_MASTER_UI_PORT": 28080,
    "SPARK_WORKER_1_UI_PORT": 28081,
    "SPARK_WORKER_2_UI_PORT": 28082,
    "SPARK_HISTORY_UI_PORT": 28083,
    "PROMETHEUS_PORT": 19090,
    "SPARK_DRIVER_UI_PORT": 14040,
    "SPARK_DRIVER_UI_LAST_PORT": 14043,
    "CLOUD_UI_PORT": 14044,
    "SQUARES_UI_PORT": 14045,
    "SQUARES_KAFKA_UI_PORT": 14046,
    "ALERTS_UI_PORT": 14047,
    "FOG_UI_PORT_BASE": 14050,
    "NUMBERS_PORT": 19999,
    "BOARD_PORT": 18090,
}
RUNNER = os.environ.get("STACK", "local")
# The stacks of both runners can be tested at once.
ENV = {name: str(port + 200 * (RUNNER == "docker")) for name, port in PORTS.items()} | {
    "COMPOSE_PROJECT_NAME": "fedstream-test",
    "CONTAINER_PREFIX": PREFIX,
    "RUN_DIR": ".run-test",
    "NODES": "2",
    # Light and rare training, where a test is not about what is learned.
    "LOCAL_EPOCHS": "1",
    "TRAIN_BATCH_SIZE": "512",
    "UPDATE_MIN_READINGS": "1000",
    "UPDATE_MAX_WAIT_SECONDS": "10",
    "REALTIME_INTERVAL_SECONDS": "5",
    # Without a pause one micro-batch follows the other as long as the sensors send, and takes the CPU from all starts.
    "TRIGGER_INTERVAL_MS": "500",
    # A flood is many micro-batches, and a driver dies in the midst of them.
    "MAX_OFFSETS_PER_TRIGGER": "20000",
}
# Small and frequent rounds, where a test is about what is learned.
QUICK = {"UPDATE_MAX_WAIT_SECONDS": "1", "ROUND_DEADLINE_SECONDS": "4", "MAX_READINGS_PER_UPDATE": "400"}
QUICK |= {"LOCAL_EPOCHS": "5", "TRAIN_BATCH_SIZE": "64", "UPDATE_MIN_READINGS": "100"}
QUICK |= {"UPDATE_INTERVAL_MS": "200", "CLOUD_INTERVAL_MS": "200"}

TOPICS = [
    *("dead-letter", "events", "global-model", "model-versions", "model-weights", "round-control"),
    *("sensor-data", "sensor-data-node-1", "sensor-data-node-2"),
]
SERVICES = ["zookeeper", "kafka", "topics", "spark-master", "spark-worker-1", "spark-worker-2", "producer", "board"]
JOBS = ["sensors", "fog-1", "fog-2", "cloud", "squares", "bridge", "squares-kafka", "alerts"]


class Stack:
    """A stack and the ways in which a user reaches it."""

    def __init__(self, java_options: str = "") -> None:
        """Forget the logs of an earlier run on this runner; nothing is started yet.

        Args:
            java_options: what each server and job of the local runner gets beside its own options.
        """
        self.runner = RUNNER
        self._of_all_parts = {"JAVA_TOOL_OPTIONS": java_options} if java_options else {}
        shutil.rmtree(LOGS / RUNNER, ignore_errors=True)
        self.bootstrap = f"localhost:{ENV['KAFKA_PORT']}"
        self._is_up = self._is_empty = self._has_logs = False

    # --- start and end

    def up(self) -> None:
        """Start the services, if a test has stopped them all."""
        if self._is_up:
            return
        if self.runner == "docker":
            os.environ |= ENV  # testcontainers hands its own environment on to Compose
            self._has_logs = True
            DockerCompose(ROOT, build=True, wait=True, profiles=["jobs"], services=SERVICES).start()
            self._is_up = True
        else:
            self.make("up")

    def empty(self) -> None:
        """Have a stack that nothing was sent to: the present one, or one made anew."""
        if not self._is_empty:
            self.make("clean")
        self.up()
        self._is_empty = False

    def use(self) -> None:
        """Have a stack in whatever state the tests before have left it."""
        self.up()
        self._is_empty = False

    def keep_logs(self) -> None:
        """Add the logs of all services and jobs to those in test-logs/, before they are deleted."""
        folder = LOGS / self.runner
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*SERVICES, *JOBS]:
            with (folder / f"{name}.log").open("a") as file:
                file.write(self.log(name))

    # --- what a user types

    def make(self, *words: str, check: bool = True, **env: str) -> str:
        """Run a make target and return what it printed."""
        if words[0] == "clean" and self._has_logs:
            self.keep_logs()
        self._has_logs = words[0] != "clean"
        done = subprocess.run(
            ["make", *words, f"STACK={self.runner}"],
            cwd=ROOT,
            env=os.environ | ENV | (self._of_all_parts if words[0] == "up" else {}) | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0 or not check, f"make {' '.join(words)}:\n{done.stdout}"
        if words[0] in ("up", "down", "clean"):
            self._is_up = words[0] == "up"
            self._is_empty |= words[0] == "clean"
        return done.stdout

    def run(self, container: str, *command: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command where a user types it: in a container, or in the checkout with deploy/bin/ in PATH."""
        if self.runner == "docker":
            variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
            line = ["docker", "exec", "-i", *variables, PREFIX + container, *command]
        else:
            line = ["bash", "-c", 'source deploy/local/env.sh; exec "$@"', "bash", *command]
        return subprocess.run(
            line, cwd=ROOT, env=os.environ | ENV | env, input=text, capture_output=True, text=True, timeout=400
        )

    def python(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the stack's scripts inside the stack."""
        return self.run("spark-master", "python", script, *arguments, **env)

    def fedstream(self, *words: str) -> str:
        """Run the command `fedstream` inside the stack and return what it printed."""
        done = self.run("spark-master", "fedstream", *words)
        assert done.returncode == 0, done
        return done.stdout

    def send_readings(self, count: int, *arguments: str) -> None:
        """Send simulated readings at full speed, dealt out to the nodes in turn."""
        sent = self.python("producer/sensor_producer.py", "--count", str(count), "--rate", "0", *arguments)
        assert f"{count} readings sent, all acknowledged" in sent.stdout, sent

    def log(self, name: str) -> str:
        """Return what a service or job has printed."""
        return self.make("logs", f"S={name}", check=False)

    # --- what happens to a process

    def kill(self, job: str) -> None:
        """Kill -9 every process of a service or job at once."""
        if self.runner == "docker":
            # From inside: `docker kill` would count as stopped on purpose, and no restart policy would act.
            done = self.run(job, "sh", "-c", "kill -9 -1")
            assert done.returncode in (0, 137), done
        else:
            os.killpg(self.pid(job), signal.SIGKILL)

    @contextmanager
    def paused(self, job: str) -> Iterator[None]:
        """Have the driver of a job say and hear nothing within this block."""

        def tell(verb: str, number: signal.Signals) -> None:
            if self.runner == "docker":
                subprocess.run(["docker", verb, PREFIX + job], check=True, capture_output=True)
            else:
                os.killpg(self.pid(job), number)

        tell("pause", signal.SIGSTOP)
        try:
            yield
        finally:
            tell("unpause", signal.SIGCONT)

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
            command = ["bash", "-c", f"{SUPERVISORCTL} {verb} {self._name(service)}"]
        subprocess.run(command, cwd=ROOT, env=os.environ | ENV, check=verb == "start", capture_output=True, timeout=60)

    def _name(self, job: str) -> str:
        if job.startswith("spark-worker-"):
            return f"spark-worker:{job}"
        return job if job in SERVICES else f"jobs:{job}"

    def pid(self, job: str) -> int:
        """Return the first process of a service or job of the local runner, which leads a group."""
        line = f"{SUPERVISORCTL} pid {self._name(job)}"
        return int(subprocess.check_output(["bash", "-c", line], cwd=ROOT, env=os.environ | ENV, text=True))

    # --- what is on the topics

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

    def end_offset(self, topic: str, number: int = 0) -> int:
        """Return how many records a topic's partition of this number has ever had."""
        with KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False) as consumer:
            partition = TopicPartition(topic, number)
            return int(consumer.end_offsets([partition])[partition])

    def messages(self, topic: str, start: int = 0) -> list[dict[str, Any]]:
        """Return the JSON messages now on a topic."""
        return [json.loads(record.value) for record in self.records(topic, start)]

    def send(self, topic: str, *values: bytes | None) -> None:
        """Put values on a topic's first partition as they are, in this order."""
        with KafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=2_000_000) as producer:
            sent = [producer.send(topic, value=value, key=b"test", partition=0) for value in values]
            for each in sent:
                each.get(timeout=30)

    # --- what a node and the cloud have said

    def node_messages(self, node: int) -> list[dict[str, Any]]:
        """Return all a node has sent; the topic also holds what the tests of bad updates have sent."""
        key = f"fog-{node}".encode()
        return [json.loads(record.value) for record in self.records("model-weights") if record.key == key]

    def updates(self, node: int, source: str = "") -> list[dict[str, Any]]:
        """Return a node's running weights of its own topic, or of another source."""
        sent = self.node_messages(node)
        return [message for message in sent if "round" not in message and message.get("source", "") == source]

    def samples(self, node: int, source: str = "") -> int:
        """Return the `samples` of the newest of these, 0 before the first."""
        updates = self.updates(node, source)
        return updates[-1]["samples"] if updates else 0

    def trained(self, node: int, source: str = "") -> list[dict[str, Any]]:
        """Return a node's updates of rounds, each once however often it was sent."""
        sent = [message for message in self.node_messages(node) if "round" in message]
        return list({each["trained_at"]: each for each in sent if each.get("source", "") == source}.values())

    def learned(self, node: int, source: str = "") -> int:
        """Return how many readings a node has learned from, over all these updates."""
        return sum(update["num_examples"] for update in self.trained(node, source))

    def rounds(self) -> list[dict[str, Any]]:
        """Return the models that opened a round, each once however often it was sent, in order."""
        models = [message for message in self.messages("global-model") if "round" in message]
        return list({(message["run_id"], message["round"]): message for message in models}.values())

    def weights(self) -> list[dict[str, Any]]:
        """Return the global weights."""
        return [json.loads(record.value) for record in self.records("global-model") if record.key == b"weight"]

    def model(self) -> dict[str, Any]:
        """Return the newest global weight, one of no nodes before the first."""
        return (self.weights() or [{"samples": 0, "nodes": 0}])[-1]

    def settled_model(self, nodes: int = 2) -> dict[str, Any]:
        """Return a global weight of all updates up to now: that of a node of the test's own, sent behind them."""
        before = {node: self.samples(node) for node in range(1, nodes + 1)}
        self.send_readings(nodes, "--nodes", str(nodes))
        for node, samples in before.items():
            self.eventually_counts(node, samples + 1)
        known = eventually("a model of these nodes", self.model, lambda seen: seen["nodes"] >= nodes)["nodes"]
        silent = {"node_id": f"silent-{uuid.uuid4().hex[:8]}", "weight": 50.0, "samples": 1}
        self.send("model-weights", json.dumps(silent).encode())
        return eventually("a model of the silent node", self.model, lambda seen: seen["nodes"] > known)

    def eventually_counts(self, node: int, samples: int) -> None:
        """Wait until a node has counted so many readings of its own topic, and no more."""
        eventually(f"samples of fog-{node}", lambda: self.samples(node), lambda seen: seen == samples)

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
            shown = repr(seen)
            shown = shown if len(shown) < 1000 else f"{shown[:500]} ... {shown[-500:]}"
            pytest.fail(f"{what}: not within {timeout_seconds:g} s; last seen: {shown}")
        time.sleep(0.2)  # between two observations


def at_once(*starts: Callable[[], object]) -> None:
    """Do these beside each other, such as two starts of jobs, and wait for all."""
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(start) for start in starts]:
            each.result()


def weight_of(readings: list[dict[str, float]]) -> float:
    """Return the contract's formula, computed another way than the stack does (means, not running sums)."""
    mean_temperature = fmean(reading["temperature"] for reading in readings)
    mean_vibration = fmean(reading["vibration"] for reading in readings)
    return (mean_temperature + 100 * mean_vibration) / 2
