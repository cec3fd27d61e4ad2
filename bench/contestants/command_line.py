"""The command line that all rivals share, those in bench/jvm/ too, and what they are asked to do.

    WORKLOAD --bootstrap HOST:PORT --input TOPIC --output TOPIC --node NAME --parallelism P --state DIR --mode MODE

squares: `{"n":59}` becomes `{"n":59,"square":3481}`. weights: readings become the running mean over all readings of the
node, `{"node_id":...,"weight":(mean temperature + 100 * mean vibration) / 2,"samples":...}`, sent after each poll.
A rival prints `ready` once it reads, starts at the first record, and ends on SIGTERM.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Task:
    """What a rival was asked to do; `state` is a folder of this run's own, so its last part names the run."""

    workload: str
    bootstrap: str
    source: str
    target: str
    node: str
    parallelism: int
    state: str
    mode: str

    @property
    def group(self) -> str:
        """The consumer group: a new one in each run, so that none goes on where another one stopped."""
        return f"{self.node}-{self.state.rstrip('/').rpartition('/')[2]}"

    @property
    def linger_ms(self) -> int:
        """How long a producer waits for company: not at all for latency, 5 ms (librdkafka's default) for throughput."""
        return 0 if self.mode == "latency" else 5


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the rivals' options; it is called with the keyword arguments of `Task`."""
    for option in reversed(
        (
            click.argument("workload", type=click.Choice(["squares", "weights"])),
            click.option("--bootstrap", required=True, help="Broker, HOST:PORT."),
            click.option("--input", "source", required=True, help="Topic to read."),
            click.option("--output", "target", required=True, help="Topic to write."),
            click.option("--node", default="fog-1", show_default=True, help="`node_id` of the weights."),
            click.option("--parallelism", default=1, show_default=True, type=click.IntRange(1)),
            click.option("--state", required=True, help="Folder of this run, for what the rival keeps."),
            click.option("--mode", type=click.Choice(["latency", "throughput"]), default="latency", show_default=True),
        )
    ):
        command = option(command)
    return command


def stop_signal() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    return stopping


class RunningMean:
    """A node's weight over all its readings so far, in memory."""

    def __init__(self, node: str) -> None:
        """Start without readings."""
        self.node, self.samples, self.temperature, self.vibration = node, 0, 0.0, 0.0

    def add(self, reading: dict[str, Any]) -> None:
        """Take a reading in."""
        self.samples += 1
        self.temperature += reading["temperature"]
        self.vibration += reading["vibration"]

    def message(self) -> dict[str, Any]:
        """Return what is sent of it; there has to be a reading."""
        weight = (self.temperature + 100 * self.vibration) / self.samples / 2
        return {"node_id": self.node, "weight": weight, "samples": self.samples}
