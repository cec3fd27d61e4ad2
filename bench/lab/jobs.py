"""This project as the bench sees it: the only place in the laboratory that knows its topics, jobs and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.lab.measures import Floats
from bench.lab.stack import BASE, BOOTSTRAP, ROOT, environment, make, wait_until
from fedstream.broker import kafka
from fedstream.messages.readings import reading_format
from fedstream.messages.rounds import global_model
from fedstream.messages.topics import ALERTS as ALERTS
from fedstream.messages.topics import GLOBAL_MODEL
from fedstream.messages.topics import MODEL_WEIGHTS as MODEL_WEIGHTS
from fedstream.messages.topics import sensor_topic as sensor_topic
from fedstream.settings import Settings
from fedstream.terminal import Command as Command
from producer.sensor_producer import simulate_readings

SETTINGS = Settings(kafka_bootstrap_servers=BOOTSTRAP)
Messages = Iterator[tuple[bytes | None, bytes]]  # key and value of each


def ensure_topics(*names: str) -> None:
    """Make those of the stack's topics that are not there yet."""
    kafka.ensure_topics(SETTINGS, names)


def records_of(topic: str) -> list[Any]:
    """Return all records that a topic holds now."""
    return list(kafka.read_topic(SETTINGS, topic))


def readings(seed: int) -> Messages:
    """Yield (key, value) of simulated readings of one node, without end."""
    form = reading_format(SETTINGS)
    return ((reading.sensor_id.encode(), form.encode(reading)) for _, reading in simulate_readings(SETTINGS, 1, seed))


def serve_model(version: int = 1) -> dict[str, Floats]:
    """Publish a version of the global model, an MLP with 16 hidden units and random weights; return its arrays."""
    random = np.random.default_rng(version)
    shapes = {"coefs_0": (2, 16), "intercepts_0": (16,), "coefs_1": (16, 1), "intercepts_1": (1,)}
    arrays = {name: random.normal(0, 0.05, shape) for name, shape in shapes.items()}
    kafka.connect_publisher(SETTINGS)((GLOBAL_MODEL, "mlp", global_model("bench", version, version, arrays)))
    return arrays


def run_jobs(**settings: Any) -> None:
    """Start cloud and fog nodes on an empty stack, with values of their settings and of the Makefile's variables."""
    pages = f"FOG_UI_PORT_BASE={BASE + 50}"  # the ports of the fog drivers' pages lie behind those of the stack
    make("clean")
    given = [pages, *(f"{name}={value}" for name, value in settings.items())]
    make("up", *given)
    make("-j2", "run-cloud", "run-fog", *given)


def send(count: int, *more: str, rate: float = 0) -> None:
    """Send simulated readings from the host, that many a second and node; 0: as fast as Kafka takes them."""
    command = [sys.executable, "producer/sensor_producer.py", "--count", str(count), "--rate", str(rate), *more]
    given = environment() | {"KAFKA_BOOTSTRAP_SERVERS": BOOTSTRAP}
    subprocess.run(command, cwd=ROOT, env=given, check=True, capture_output=True)


def rounds() -> list[dict[str, Any]]:
    """Return the models that opened a round, in order, each with the time `at` (ms) of its record."""
    found: dict[int, dict[str, Any]] = {}
    for record in records_of(GLOBAL_MODEL):
        message = json.loads(record.value)
        if "round" in message:
            found.setdefault(message["round"], message | {"at": record.timestamp})
    return [found[number] for number in sorted(found)]


def opened_beyond(number: int) -> list[dict[str, Any]]:
    """Wait for more than so many opened rounds, and return their models; each look reads the topic anew."""

    def enough() -> list[dict[str, Any]] | None:
        found = rounds()
        return found if len(found) > number else None

    return list(wait_until(f"more than {number} rounds", enough, timeout_seconds=400, every_seconds=0.5))
