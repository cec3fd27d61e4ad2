"""Quix Streams: a Python stream engine on librdkafka that handles one message at a time.

It has no end of a poll, so a weight is sent for each reading. The running mean is kept in memory like that of the plain
loops: its own state lies in RocksDB per partition, and a node's readings may come in two of them.
"""

from __future__ import annotations

import logging
from typing import Any

import click
from command_line import RunningMean, Task, options
from quixstreams import Application


def square(message: dict[str, Any]) -> dict[str, Any]:
    """Return a number with its square."""
    return {"n": message["n"], "square": message["n"] * message["n"]}


@click.command(help=__doc__)
@options
def main(**given: Any) -> None:
    """Read, compute, write until SIGTERM, which Quix Streams handles."""
    task = Task(**given)
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        state_dir=task.state,
        loglevel=logging.WARNING,
        producer_extra_config={"linger.ms": task.linger_ms},
    )
    mean = RunningMean(task.node)

    def running_mean(reading: dict[str, Any]) -> dict[str, Any]:
        mean.add(reading)
        return mean.message()

    stream = app.dataframe(app.topic(task.source))
    stream = stream.apply(square if task.workload == "squares" else running_mean)
    stream.to_topic(app.topic(task.target))
    print("ready", flush=True)  # it reads from the first record, so nothing is lost until partitions are assigned
    app.run()


if __name__ == "__main__":
    main()
