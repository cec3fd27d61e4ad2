"""Which nodes a fog driver hosts, which topics it reads for them, and in how many tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import click

from fedstream.broker.position import Position
from fedstream.messages.topics import sensor_topic

FEW_TOPICS = 8  # of a driver that trains their nodes in one task
LONGEST_FOLDER = 100  # characters


@dataclass(frozen=True)
class Scope:
    """Which records a driver reads, and whose they are."""

    nodes: list[int]  # empty with a pattern
    topics: str  # `a,b`, or a pattern with *
    sensors: list[str]  # of the node, on a shared topic; empty: node-N

    @classmethod
    def of(cls, nodes: list[int], topic: str | None, sensors: str | None) -> Scope:
        """Read the options.

        Raises:
            click.UsageError: they do not go together.
        """
        is_pattern = topic is not None and "*" in topic
        if is_pattern == bool(nodes) or (sensors and (len(nodes) > 1 or is_pattern)):
            expected = "expected --node, or --topic with a pattern that has a *"
            raise click.UsageError(f"{expected}; --sensors goes with one node and a shared topic")
        topics = topic or ",".join(map(sensor_topic, nodes))
        return cls(nodes, topics, [name.strip() for name in sensors.split(",")] if sensors else [])

    @property
    def name(self) -> str:
        """The query's name, and that of its folder."""
        if not self.nodes:
            return "fog-all"
        return f"fog-{self.nodes[0]}" if len(self.nodes) == 1 else f"fog-{self.nodes[0]}-{self.nodes[-1]}"

    @property
    def is_shared(self) -> bool:
        """Whether the topic has other nodes' readings, too, so that a sensor tells the node."""
        return bool(self.nodes) and self.topics.split(",") != [sensor_topic(node) for node in self.nodes]

    @property
    def node_of_sensor(self) -> dict[str, int] | None:
        """Whose the sensors are, or None where the topic tells it."""
        if not self.is_shared:
            return None
        return {name: self.nodes[0] for name in self.sensors} or {f"node-{node}": node for node in self.nodes}

    def folder(self, checkpoints: Path, start: Position | None) -> Path:
        """Return where this driver keeps its state."""
        return checkpoints / self.name / folder_of(self.topics) / (f"from-{start}" if start else "")

    def source(self, start: Position | None, since: str) -> str:
        """Say what is counted, where that is not all of the nodes' own topics from their first record on."""
        parts = [self.topics] * self.is_shared + [f"from {start}"] * bool(start) + [f"since {since}"] * bool(since)
        return " ".join(parts)


def folder_of(topics: str) -> str:
    """Return the name of the folder for what a job keeps of topics (`a,b`, or a pattern with `*`)."""
    name = topics.replace("*", "_")
    if len(name) <= LONGEST_FOLDER:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()  # two long lists may begin alike
    return f"{name[: LONGEST_FOLDER - len(digest) - 1]}-{digest}"


def parse_nodes(text: str) -> list[int]:
    """Return the node numbers of `1`, `1-50` or `1,3,7-9`.

    Raises:
        click.BadParameter: a part is neither a number of at least 1 nor a range of such.
    """
    nodes: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 10_000):
            msg = f"{text!r}; expected node numbers from 1 to 10000: 1, 1-50 or 1,3,7-9"
            raise click.BadParameter(msg)
        nodes.update(range(int(first), int(last) + 1))
    return sorted(nodes)


def share_slots(slots: int, topics: int, partitions: int, is_trained: bool) -> tuple[int, int]:
    """Return in how many tasks running weights and trainings read so many topics (0 of a pattern: not known).

    Unbounded, each partition would be a task of its own, however few the slots are. The weights leave a slot to the
    training, if there is one. Grouping by node in one task needs no shuffle: for few nodes that saves more than a
    second core brings.
    """
    are_few = 0 < partitions == topics <= FEW_TOPICS
    return max(1, slots - is_trained), 1 if are_few else slots
