"""The bench's view of the topics: make them, watch their ends, read them back with the broker's times."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from bench.lab.measures import Floats, Ints
from bench.lab.stack import StackError

TIMEOUT_SECONDS = 30.0
PLACE = "place of the input"  # PLACES_IN_PARTITION * its partition + its offset
PLACES_IN_PARTITION = 10**12
# Of a consumer: with the default it fetches nothing for a second whenever 100,000 messages are queued.
FETCH_ON = {"fetch.queue.backoff.ms": 1}


class Topics:
    """A connection to the broker of the bench's stack."""

    def __init__(self, bootstrap: str) -> None:
        """Connect at the first use."""
        where = {"bootstrap.servers": bootstrap, "log_level": 2}  # what matters comes as an exception
        self._admin = AdminClient(where)
        # The group is needed by the client's form only: nothing is committed.
        reader = {"group.id": "bench", "enable.auto.commit": False, "enable.partition.eof": True}
        self._consumer = Consumer(where | reader | FETCH_ON)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def create(self, partitions: int, *names: str) -> None:
        """Create topics on which the broker sets each record's time; raises KafkaException if one exists."""
        config = {"message.timestamp.type": "LogAppendTime"}
        topics = [NewTopic(name, partitions, 1, config=config) for name in names]
        self._wait(self._admin.create_topics(topics, operation_timeout=TIMEOUT_SECONDS))

    def use_broker_time(self, name: str) -> None:
        """Make the broker set the time of each record from now on, on a topic that exists."""
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        self._wait(self._admin.incremental_alter_configs([resource]))

    def delete(self, *names: str) -> None:
        """Delete topics."""
        if names:
            self._wait(self._admin.delete_topics(list(names), operation_timeout=TIMEOUT_SECONDS))

    def _wait(self, asked: Mapping[Any, Any]) -> None:
        for future in asked.values():
            future.result(TIMEOUT_SECONDS)

    def ends(self, name: str) -> list[int]:
        """Return the end offset of each partition."""
        partitions = sorted(self._admin.list_topics(name, timeout=TIMEOUT_SECONDS).topics[name].partitions)
        return [
            self._consumer.get_watermark_offsets(TopicPartition(name, number), TIMEOUT_SECONDS)[1]
            for number in partitions
        ]

    def records(self, name: str, starts: Sequence[int], take: Callable[[Message, int], Any]) -> None:
        """Call `take` with each record and its time (ms) from the start offsets to the ends that there are now.

        Raises:
            StackError: records do not come, or one does not have the broker's time.
        """
        ends = self.ends(name)  # who waited for the end of a partition would follow a fast writer to its last record
        pending = {number for number, start in enumerate(starts) if start < ends[number]}
        self._consumer.assign([TopicPartition(name, number, start) for number, start in enumerate(starts)])
        while pending:
            records = self._consumer.consume(20_000, timeout=0.2) or self._consumer.consume(1, timeout=TIMEOUT_SECONDS)
            if not records:
                msg = f"{name}: no record of partitions {sorted(pending)} within {TIMEOUT_SECONDS:g} s"
                raise StackError(msg)
            for record in records:
                number = record.partition()
                if error := record.error():
                    if error.code() != KafkaError._PARTITION_EOF:  # where the last record is a transaction's mark
                        raise KafkaException(error)
                    pending.discard(number)
                    continue
                if record.offset() >= ends[number] - 1:
                    pending.discard(number)
                if record.offset() >= ends[number]:
                    continue
                kind, at_ms = record.timestamp()
                if kind != TIMESTAMP_LOG_APPEND_TIME:
                    msg = f"{name} has records without LogAppendTime; expected message.timestamp.type=LogAppendTime"
                    raise StackError(msg)
                take(record, at_ms)
        self._consumer.unassign()

    def last_values(self, name: str, starts: Sequence[int], count: int) -> list[bytes]:
        """Return the newest values, at most so many, on a topic of one partition from the start offset on."""
        (end,) = self.ends(name)
        values: list[bytes] = []
        if end > starts[0]:
            self.records(name, [max(starts[0], end - count)], lambda record, _: values.append(record.value()))
        return values

    def columns(
        self, name: str, starts: Sequence[int], *fields: str, where: tuple[str, str] | None = None
    ) -> tuple[Ints, list[Floats]]:
        """Return the times (ms) of the records from the start offsets on, and a column for each of these fields.

        What is no number, or not there, is NaN: no result is right that holds one.

        Args:
            name: of the topic.
            starts: offset in each partition.
            fields: of the JSON objects; PLACE: from the key.
            where: a field and its value: only such records count; None: all.
        """
        times, columns = array("q"), [array("d") for _ in fields]

        def take(record: Message, at_ms: int) -> None:
            try:
                message = orjson.loads(record.value())
                if PLACE in fields:  # the key says where the input stands: topic/partition/offset
                    _, partition, offset = record.key().split(b"/")
                    message[PLACE] = PLACES_IN_PARTITION * int(partition) + int(offset)
                if where and message[where[0]] != where[1]:
                    return
                row = [float(message[field]) for field in fields]
            except (ValueError, KeyError, TypeError):
                row = [math.nan] * len(fields)
            times.append(at_ms)
            for column, number in zip(columns, row, strict=True):
                column.append(number)

        self.records(name, starts, take)
        return np.array(times, np.int64), [np.array(column) for column in columns]
