"""A plain loop on confluent-kafka (librdkafka) and orjson: the fastest a Python program without an engine gets.

At least once, as it commits after a flush; the running mean itself is lost with the process.
"""

from __future__ import annotations

import time
from typing import Any

import click
import orjson
from command_line import RunningMean, Task, options, stop_signal
from confluent_kafka import Consumer, KafkaException, Message, Producer

COMMIT_SECONDS = 5.0


def poll(consumer: Consumer, most: int) -> list[Message]:
    """Return what has come, at once when there is something, after 0.2 s when there is nothing.

    Raises:
        KafkaException: the broker or the client reported an error.
    """
    first = consumer.poll(0.2)  # `consume` alone would wait until it has all it was asked for
    messages = [] if first is None else [first, *consumer.consume(most - 1, timeout=0)]
    for message in messages:
        if message.error():
            raise KafkaException(message.error())
    return messages


@click.command(help=__doc__)
@options
def main(**given: Any) -> None:
    """Read, compute, write until SIGTERM."""
    task, stopping = Task(**given), stop_signal()
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": task.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # With the default it fetches nothing for a second whenever 100,000 messages are queued.
            "fetch.queue.backoff.ms": 1,
        }
    )
    producer = Producer({"bootstrap.servers": task.bootstrap, "linger.ms": task.linger_ms})
    consumer.subscribe([task.source], on_assign=lambda *_: print("ready", flush=True))
    mean, committed_at = RunningMean(task.node), time.monotonic()

    def send(message: dict[str, Any]) -> None:
        while True:
            try:
                producer.produce(task.target, orjson.dumps(message))
                return
            except BufferError:  # 100,000 wait already
                producer.poll(0.01)

    while not stopping.is_set():
        messages = poll(consumer, 500 if task.mode == "latency" else 10_000)
        for message in messages:
            value = orjson.loads(message.value())
            if task.workload == "squares":
                send({"n": value["n"], "square": value["n"] * value["n"]})
            else:
                mean.add(value)
        if messages and task.workload == "weights":
            send(mean.message())
        producer.poll(0)
        if messages and time.monotonic() - committed_at > COMMIT_SECONDS:
            producer.flush()  # before the commit: what is committed has been sent
            consumer.commit(asynchronous=True)
            committed_at = time.monotonic()
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    main()
