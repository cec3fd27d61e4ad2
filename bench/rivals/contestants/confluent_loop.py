"""A plain loop on confluent-kafka (librdkafka) and orjson: the fastest a Python program without an engine gets.

At least once, as it commits after a flush; the running mean itself is lost with the process.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import orjson
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


def main() -> None:
    """Read, compute, write until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=("squares", "weights"))
    for name in ("bootstrap", "input", "output", "node", "parallelism", "state", "mode"):
        parser.add_argument(f"--{name}", required=True)
    task = parser.parse_args()
    is_quick = task.mode == "latency"
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": f"{task.node}-{Path(task.state).name}",  # a new one: no run goes on where another one stopped
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # With the default it fetches nothing for a second whenever 100,000 messages are queued.
            "fetch.queue.backoff.ms": 1,
        }
    )
    producer = Producer({"bootstrap.servers": task.bootstrap, "linger.ms": 0 if is_quick else 5})
    consumer.subscribe([task.input])
    samples, temperature, vibration, committed_at = 0, 0.0, 0.0, time.monotonic()

    def send(message: dict[str, Any]) -> None:
        while True:
            try:
                producer.produce(task.output, orjson.dumps(message))
                return
            except BufferError:  # 100,000 wait already
                producer.poll(0.01)

    while True:
        messages = poll(consumer, 500 if is_quick else 10_000)
        for message in messages:
            value = orjson.loads(message.value() or b"")
            if task.workload == "squares":
                send({"n": value["n"], "square": value["n"] * value["n"]})
            else:
                samples += 1
                temperature += value["temperature"]
                vibration += value["vibration"]
        if messages and task.workload == "weights":
            weight = (temperature + 100 * vibration) / samples / 2
            send({"node_id": task.node, "weight": weight, "samples": samples})
        producer.poll(0)
        if messages and time.monotonic() - committed_at > COMMIT_SECONDS:
            producer.flush()  # before the commit: what is committed has been sent
            consumer.commit(asynchronous=True)
            committed_at = time.monotonic()


if __name__ == "__main__":
    main()
