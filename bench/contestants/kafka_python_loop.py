"""A plain loop on kafka-python and the json module: what most tutorials show, written with care.

At least once, as it commits after a flush; the running mean itself is lost with the process.
"""

from __future__ import annotations

import json
import time
from typing import Any

import click
from command_line import RunningMean, Task, options, stop_signal
from kafka import KafkaConsumer, KafkaProducer

COMMIT_SECONDS = 5.0


@click.command(help=__doc__)
@options
def main(**given: Any) -> None:
    """Read, compute, write until SIGTERM."""
    task, stopping = Task(**given), stop_signal()
    consumer = KafkaConsumer(
        task.source,
        bootstrap_servers=task.bootstrap,
        group_id=task.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=500 if task.mode == "latency" else 10_000,
    )
    producer = KafkaProducer(
        bootstrap_servers=task.bootstrap,
        value_serializer=lambda message: json.dumps(message, separators=(",", ":")).encode(),
        linger_ms=task.linger_ms,
    )
    mean, is_ready, committed_at = RunningMean(task.node), False, time.monotonic()
    while not stopping.is_set():
        batches = consumer.poll(timeout_ms=200)
        if not is_ready and consumer.assignment():
            is_ready = True
            print("ready", flush=True)
        for records in batches.values():
            for record in records:
                value = json.loads(record.value)
                if task.workload == "squares":
                    producer.send(task.target, {"n": value["n"], "square": value["n"] * value["n"]})
                else:
                    mean.add(value)
        if batches and task.workload == "weights":
            producer.send(task.target, mean.message())
        if batches and time.monotonic() - committed_at > COMMIT_SECONDS:
            producer.flush()  # before the commit: what is committed has been sent
            consumer.commit()
            committed_at = time.monotonic()
    producer.close()
    consumer.close()


if __name__ == "__main__":
    main()
