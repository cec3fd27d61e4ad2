"""Bridge: passes the numbers of the socket producer on to a Kafka topic.

    socket producer --> numbers

A line that is no whole number is passed on as it is: the squares job keeps it in `dead-letter`.

Examples:
    python socket_stream/bridge.py
    python socket_stream/bridge.py --host producer --port 9999 --output numbers
"""

from __future__ import annotations

import os
import signal
import sys

import click

from fedstream.broker import kafka
from fedstream.messages.topics import NUMBERS
from fedstream.settings import Settings
from fedstream.spark.lines import follow_lines
from fedstream.terminal import Command

UNACKNOWLEDGED = 10_000  # most numbers on their way to the broker


def to_value(line: bytes) -> bytes:
    """Return the record's value for a line: {"n":59} for 59, the line itself if it is no whole number in ASCII."""
    text = line.strip()
    digits = text.removeprefix(b"-")
    return b'{"n":%d}' % int(text) if digits.isdigit() and len(digits) < 20 else text


@click.command(cls=Command, help=__doc__)
@click.option("--host", help="Host of the producer. [default: setting NUMBERS_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the producer. [default: setting NUMBERS_PORT]")
@click.option("--output", default=NUMBERS, show_default=True, help="Topic to write.")
def main(host: str | None, port: int | None, output: str) -> None:
    """Pass numbers on until it is stopped."""
    settings = Settings.from_env(os.environ)
    kafka.ensure_topics(settings, [output])
    with kafka.connect_producer(settings) as producer:
        host, port = host or settings.numbers_host, port or settings.numbers_port
        print(f"Pont prêt : {host}:{port} -> {output}", flush=True)
        failed: list[Exception] = []
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the producer is closed then, which sends what waits
        for count, line in enumerate(follow_lines(host, port), start=1):
            producer.send(output, value=to_value(line)).add_errback(failed.append)
            if count % UNACKNOWLEDGED == 0:
                producer.flush()  # the client buffers without limit: a broker that is away would fill the memory
            if failed:
                raise kafka.KafkaUnavailableError(f"topic {output} did not take a number: {failed[0]}")


if __name__ == "__main__":
    main()
