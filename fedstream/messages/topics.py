"""The topics' names, and whose readings a topic carries."""

from __future__ import annotations

import re
from typing import Any

SENSOR_DATA = "sensor-data"  # readings not yet assigned to a node
NODE_OF_TOPIC = r"(\d+)$"  # in the name of a topic that carries the readings of one node
MODEL_WEIGHTS = "model-weights"
GLOBAL_MODEL = "global-model"
DEAD_LETTER = "dead-letter"

ROUND_CONTROL = "round-control"  # deadlines and rollbacks: what changes the rounds beside the updates
MODEL_VERSIONS = "model-versions"  # compacted: the newest VERSIONS_KEPT versions of each run, and its best one
EVENTS = "events"  # drift, quarantine, failed aggregations

NUMBERS = "numbers"
SQUARES = "squares"
ALERTS = "alerts"  # each reading with the probability of trouble

GLOBAL_MODEL_KEY = "weight"  # the running global weight; a round's model has its name as key

Outgoing = tuple[str, str | None, Any]  # topic, key, message; None: what the key had is gone


def place_of(record: Any) -> str:
    """Return where a record stands, as a text: topic[partition]@offset."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


def sensor_topic(node: int) -> str:
    """Return the topic that carries the readings of one fog node."""
    return f"{SENSOR_DATA}-node-{node}"


def node_of_topic(topic: str) -> int | None:
    """Return the node whose readings a topic carries: the number at its end (NODE_OF_TOPIC), or None without one."""
    found = re.search(NODE_OF_TOPIC, topic)
    return int(found[1]) if found and int(found[1]) < 2**31 else None
