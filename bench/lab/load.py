"""Load generators: processes of their own, outside the system under test.

steady: numbers 1, 2, 3, ... or the producer's simulated readings. Each line `RATE COUNT` on standard input is a load:
COUNT messages on an open schedule of RATE a second (0 = as fast as the broker takes them), answered by a line of JSON.
The schedule is set when the load begins and waits for nobody: a late message is sent late, never left out, and how late
the latest one was is in the answer. Ends with its standard input.

socket: hands the numbers of a topic to the one program that connects, one a line, for a contestant that reads a socket.

Examples:
    echo 1000 5000 | python -m bench.lab.load steady squares --bootstrap localhost:9092 --topic numbers
    python -m bench.lab.load socket --bootstrap localhost:9092 --topic numbers --port 9998
"""

from __future__ import annotations

import itertools
import json
import math
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.lab.jobs import Messages, readings
from bench.lab.stack import ROOT, StackError
from bench.lab.topics import FETCH_ON

WORKLOADS = ("squares", "weights", "alerts")
Answer = dict[str, Any]  # what became of a load
LINGER_MS = 5  # default of this library and, since 4.0, of Java: a request holds a few messages, as in the field
TICK_SECONDS = 0.002  # shortest sleep between messages: each has its cost, on the cores of the system under test
FLUSH_SECONDS = 60
CLOSE_SECONDS = 10
MAKE_AHEAD_RATE = 5000  # above it making the messages would hold their schedule up, so they are made before it begins


def numbers() -> Messages:
    """Yield (key, value) of the numbers from 1 on: each is its own place in the topic."""
    return ((None, b'{"n":%d}' % n) for n in itertools.count(1))


def due_at(seconds: float, rate: float, count: int) -> int:
    """Return how many of `count` messages are due that long after the first, which is due at once."""
    return min(count, math.floor(seconds * rate) + 1)


def send(produce: Callable[[int, bytes | None, bytes], None], messages: Messages, rate: float, count: int) -> Answer:
    """Send a load and return the rate wanted (messages a second) and the greatest lateness (ms)."""
    load: Messages = itertools.islice(messages, count)
    if rate > MAKE_AHEAD_RATE:
        load = iter(list(load))
    begin, sent, latest = time.monotonic(), 0, 0.0
    while sent < count:
        now = time.monotonic() - begin
        due = due_at(now, rate, count) if rate else min(count, sent + 1000)
        if rate and sent < due:
            latest = max(latest, now - sent / rate)
        for key, value in itertools.islice(load, due - sent):
            produce(sent, key, value)
            sent += 1
        if rate and sent < count:
            time.sleep(max(TICK_SECONDS, sent / rate - (time.monotonic() - begin)))
    return {"count": count, "wanted_per_second": rate, "latest_ms": round(1000 * latest, 1)}


class Generator:
    """A generator of steady loads in a process of its own, and how many messages it has sent."""

    def __init__(self, workload: str, bootstrap: str, topics: Sequence[str], partitions: int) -> None:
        """Start it and wait until it can send; each message goes to all of the topics."""
        command = [sys.executable, "-m", "bench.lab.load", "steady", workload, "--bootstrap", bootstrap]
        command += ["--partitions", str(partitions), *(word for topic in topics for word in ("--topic", topic))]
        self.sent = 0
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            msg = f"the load generator ended with exit code {self._process.wait(10)}; see its error above"
            raise StackError(msg)
        return line

    def begin(self, rate: float, count: int) -> None:
        """Begin to send that many messages at that rate (0 = as fast as possible)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rate} {count}\n")
        self._process.stdin.flush()
        self.sent += count

    def finish(self) -> dict[str, Any]:
        """Return what became of the load that was begun, when all of it is acknowledged."""
        return dict(json.loads(self._read()))

    def check(self) -> None:
        """Raise StackError if it has ended."""
        if self._process.poll() is not None:
            self._read()

    def send(self, rate: float, count: int) -> dict[str, Any]:
        """Begin a load and finish it."""
        self.begin(rate, count)
        return self.finish()

    def close(self) -> None:
        """End it, in the middle of a load if need be."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@click.group(help=__doc__)
def main() -> None:
    """Choose a generator."""


@main.command()
@click.argument("workload", type=click.Choice(WORKLOADS))
@click.option("--bootstrap", required=True)
@click.option("--topic", "topics", required=True, multiple=True, help="Each message goes to all of them.")
@click.option("--partitions", default=1, show_default=True, help="Messages are dealt out to these in turn.")
@click.option("--seed", default=1, show_default=True, help="Of the simulated readings.")
def steady(workload: str, bootstrap: str, topics: tuple[str, ...], partitions: int, seed: int) -> None:
    """Send loads on an open schedule."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": LINGER_MS,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 2,
            # Each message's place is its number, and a retry could change places: a failure ends the load instead.
            # Idempotence would keep the order, too, but at its limit of requests in flight the client spins.
            "retries": 0,
        }
    )
    failures: list[str] = []
    messages = numbers() if workload == "squares" else readings(seed)

    def delivered(error: Any, _: Any) -> None:
        if error:
            failures.append(str(error))

    def produce(place: int, key: bytes | None, value: bytes) -> None:
        for topic in topics:
            while True:
                try:
                    producer.produce(topic, value, key, partition=place % partitions, on_delivery=delivered)
                    break
                except BufferError:  # the broker is slower than the load: what follows is late
                    producer.poll(0.01)
        producer.poll(0)
        if failures:  # at once, not at the end of a load of an hour
            raise click.ClickException(f"a message to {', '.join(topics)} was not acknowledged: {failures[0]}")

    print("ready", flush=True)
    for line in sys.stdin:
        rate, count = line.split()
        done = send(produce, messages, float(rate), int(count))
        if (left := producer.flush(FLUSH_SECONDS)) or failures:
            msg = f"{left} messages to {', '.join(topics)} not acknowledged after {FLUSH_SECONDS} s {failures[:1]}"
            raise click.ClickException(msg)
        print(json.dumps(done), flush=True)


@main.command()
@click.option("--bootstrap", required=True)
@click.option("--topic", required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", required=True, type=click.IntRange(1, 65535))
def socket(bootstrap: str, topic: str, host: str, port: int) -> None:
    """Hand a topic's numbers to one client, from the first one on, until it leaves."""
    group = {"group.id": f"socket-{topic}", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": bootstrap} | group | FETCH_ON)
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    with sockets.create_server((host, port)) as server:
        print("ready", flush=True)
        client, _ = server.accept()
    client.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    with client:
        while True:
            first = consumer.poll(1.0)
            records = [] if first is None else [first, *consumer.consume(10_000, timeout=0)]
            for record in records:
                if record.error():
                    raise KafkaException(record.error())
            try:
                # {"n":59} -> 59
                client.sendall(b"".join(record.value()[5:-1] + b"\n" for record in records))
            except OSError:
                return


if __name__ == "__main__":
    main()
