"""Reads what stands on the topics already, on demand and bounded: for a record that is followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from fedstream.board.follow import Follower, Found, Place, Row, Times
from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.settings import Settings

ANSWER_SECONDS = 5.0
SEARCH_SECONDS = 2.0
MOST_RECORDS = 20_000  # that one search reads
FETCH_BYTES = 2**21  # at once: bounds memory


class BusyError(StackError):
    """Another record is being followed at this moment."""


class Archive:
    """The topics of a broker; see `follow.Topics`."""

    def __init__(self, consumer: Any) -> None:
        """Take a consumer for this alone."""
        self._consumer = consumer
        self._names = consumer.topics()

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return len(self._of(topic))

    def _of(self, topic: str) -> list[TopicPartition]:
        return kafka.partitions_of(self._consumer, topic) if topic in self._names else []

    def record(self, place: Place) -> Any:
        """Return the record at a place, or why there is none."""
        partition = TopicPartition(place.topic, place.partition)
        if partition not in self._of(place.topic):
            return "none"
        start = self._consumer.beginning_offsets([partition])[partition]
        end = kafka.ends_of(self._consumer, [partition])[partition]
        if not start <= place.offset < end:
            return "gone" if place.offset < start else "to-come"
        self._consumer.assign([partition])
        self._consumer.seek(partition, place.offset)
        deadline = time.monotonic() + SEARCH_SECONDS
        while time.monotonic() < deadline and self._consumer.position(partition) <= place.offset:
            for record in self._consumer.poll(timeout_ms=200, max_records=1).get(partition, []):
                return record if record.offset == place.offset else "none"
        return "none"

    def search(self, topic: str, times_ms: Times, is_wanted: Callable[[Any], bool], most: int) -> Found:
        """Return the wanted records of a topic between two times."""
        since, until = times_ms
        partitions = self._of(topic)
        if not partitions:
            return Found([], True)
        ends = kafka.ends_of(self._consumer, partitions)
        starts = self._consumer.offsets_for_times(dict.fromkeys(partitions, max(since, 0)))
        self._consumer.assign(partitions)
        for each in partitions:
            self._consumer.seek(each, starts[each].offset if starts.get(each) else ends[each])
        found: list[Any] = []
        seen, deadline = 0, time.monotonic() + SEARCH_SECONDS
        left = set(partitions)
        while left := {each for each in left if self._consumer.position(each) < ends[each]}:
            if seen >= MOST_RECORDS or time.monotonic() > deadline:
                return Found(found, False)
            for partition, batch in self._consumer.poll(timeout_ms=200).items():
                seen += len(batch)
                for record in batch:
                    if until is not None and record.timestamp > until:
                        left.discard(partition)
                        break
                    if is_wanted(record):
                        found.append(record)
                        if len(found) == most:
                            return Found(found, False)
        return Found(found, True)


class FollowOne:
    """Follows a record at a time."""

    def __init__(self, settings: Settings, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Take where the board's newest snapshot is."""
        self._settings = replace(settings, wait_timeout_seconds=ANSWER_SECONDS)
        self._snapshot = snapshot
        self._lock = threading.Lock()

    def __call__(self, place: Place) -> Row:
        """Return what became of the record at a place.

        Raises:
            StackError: the broker does not answer, or another record is being followed.
        """
        if not self._lock.acquire(blocking=False):
            raise BusyError("another record is being followed at this moment; try again")
        try:
            with closing(kafka.connect_consumer(self._settings, fetch_max_bytes=FETCH_BYTES)) as consumer:
                return Follower(place, Archive(consumer), self._snapshot(), self._settings).follow()
        except KafkaError as error:
            raise StackError(f"Kafka does not answer: {error}") from error
        finally:
            self._lock.release()
