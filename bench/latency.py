"""Time from a reading to the weight that includes it, from the broker's own topics of a running stack.

An update's `samples` tells the last reading behind it: the record with that number in the node's topic (one partition,
no rejected record). Both times are those the producing clients gave their records on this machine; both clocks are one.

Example:
    python bench/latency.py --node 1 --last 300
"""

from __future__ import annotations

import json
import os
import statistics

import click

from fedstream.broker import kafka
from fedstream.messages.topics import MODEL_WEIGHTS, sensor_topic
from fedstream.settings import Settings, command_help


def read_all(settings: Settings, topic: str) -> list[tuple[int, bytes]]:
    """Return (timestamp in ms, value) of every record now on a topic's first partition."""
    return [
        (record.timestamp, record.value) for record in kafka.follow_topic(settings, topic)(0) if record.partition == 0
    ]


@click.command(help=command_help(__doc__))
@click.option("--node", default=1, show_default=True, type=click.IntRange(1))
@click.option("--last", default=300, show_default=True, help="Use this many of the newest updates.")
def main(node: int, last: int) -> None:
    """Print count, p50, p95 and maximum in milliseconds."""
    settings = Settings.from_env(os.environ)
    updates = [(timestamp, json.loads(value)) for timestamp, value in read_all(settings, MODEL_WEIGHTS)]
    # Read last, so that it holds what all updates tell of.
    readings = [timestamp for timestamp, _ in read_all(settings, sensor_topic(node))]
    weights = [(at, update) for at, update in updates if update["node_id"] == f"fog-{node}" and "round" not in update]
    own = [(at, update["samples"]) for at, update in weights][-last:]
    waits = sorted(at - readings[samples - 1] for at, samples in own)
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    print(f"node {node}: {len(waits)} updates, p50 {cuts[49]:.0f} ms, p95 {cuts[94]:.0f} ms, max {waits[-1]} ms")


if __name__ == "__main__":
    main()
