"""Finds the records that no executor can hold: small on the topic, they unpack to gigabytes.

The broker bounds the packed size only. So it is looked for in a process of its own, whose memory is bounded.

    python -m fedstream.spark.oversized sensor-data-node-1:0:100-599
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from kafka import TopicPartition

from fedstream.broker import kafka
from fedstream.settings import Settings
from fedstream.spark.skips import Skip, parse_place

MEMORY_BYTES = 700 * 2**20  # of the process; all it needs for records that an executor can hold
MOST_BYTES = 2**25  # of a record; no message of the stack is a tenth as long
LOOK_SECONDS = 300
# Of Spark's text when an executor has died of a record, or the task that has read it.
_DIED = re.compile(r"OutOfMemoryError|exited with code (?:52|137)|Requested array size exceeds VM limit")


class Reader:
    """Reads records one by one."""

    def __init__(self, consumer: Any, partition: TopicPartition) -> None:
        """Take the partition."""
        self._consumer, self._partition = consumer, partition
        consumer.assign([partition])

    def first_oversized(self, first: int, last: int) -> int | None:
        """Return the first offset of these at which a record cannot be read or is too long."""
        self._consumer.seek(self._partition, first)
        while (at := int(self._consumer.position(self._partition))) <= last:
            if self._is_oversized():
                return at
        return None

    def end_of_batch(self, first: int, last: int) -> int:
        """Return the last of the offsets that cannot be read since they are packed together with the first one."""
        step = 1
        while first + step <= last and self._fails_at(first + step):
            step *= 2
        fails, reads = first + step // 2, min(first + step, last + 1)
        while reads - fails > 1:
            middle = (fails + reads) // 2
            fails, reads = (middle, reads) if self._fails_at(middle) else (fails, middle)
        return fails

    def _fails_at(self, offset: int) -> bool:
        self._consumer.seek(self._partition, offset)
        return self._is_oversized()

    def _is_oversized(self) -> bool:
        try:
            found = self._consumer.poll(timeout_ms=10_000, max_records=1)
        except MemoryError:
            return True
        return any(len(record.value or b"") > MOST_BYTES for batch in found.values() for record in batch)


def has_died(text: str) -> bool:
    """Tell by the text of Spark's error whether an executor had too little memory."""
    return _DIED.search(text) is not None


def find(settings: Settings, unread: Iterable[Skip]) -> Skip | None:
    """Return the records too long for an executor among those that a query was about to read, None if all are short."""
    command = [sys.executable, "-m", __name__, *map(str, unread)]
    environ = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return parse_place(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def look(settings: Settings, places: Iterable[Skip]) -> Skip | None:
    """Return the first records of these places that are too long to be read."""
    for place in places:
        with closing(kafka.connect_consumer(settings)) as consumer:
            reader = Reader(consumer, TopicPartition(place.topic, place.partition))
            first = reader.first_oversized(place.first, place.last)
            if first is not None:
                return Skip(place.topic, place.partition, first, reader.end_of_batch(first, place.last))
    return None


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(look(Settings.from_env(os.environ), map(parse_place, sys.argv[1:])) or "")
