"""The command that sends a topic's history again, in order and with its timing.

topic --> [a span of offsets for each partition] --> [merged by time] --> [each when it is due] --> another topic
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click
from kafka import TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import KafkaError

from fedstream.broker import kafka
from fedstream.broker.position import Position, find_spans, now_ms, parse_position
from fedstream.commands.schedule import by_time, paced, parse_speed
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.terminal import Command

HELD_BYTES = 2**22  # of a partition that waits for the others: more are not fetched
UNACKNOWLEDGED_BYTES = 2**24  # most that is on its way to the broker: the client buffers without limit
OWN = "DYNAMIC_TOPIC_CONFIG"  # of a topic's configuration, what was set for this topic

Spans = Mapping[TopicPartition, range]  # of offsets


@dataclass(frozen=True)
class Replay:
    """What is to be sent again: a span of a topic (None: its begin or end), how fast, and to which topic."""

    topic: str
    first: Position | None = None
    last: Position | None = None
    speed: float = 1.0
    into: str | None = None


def read_spans(consumer: Any, spans: Spans, timeout_seconds: float) -> list[Iterator[Any]]:
    """Return the records of each partition, read as they are asked for; of each at most HELD_BYTES wait in memory.

    Offsets without a record (compacted, of an aborted transaction, a transaction's marker) are passed over. An iterator
    raises StackError if no record comes within the timeout.
    """
    waiting: dict[TopicPartition, deque[Any]] = {partition: deque() for partition in spans}
    held: Counter[TopicPartition] = Counter()
    consumer.assign(list(spans))
    for partition, span in spans.items():
        consumer.seek(partition, span.start)

    def fetch(partition: TopicPartition, end: int) -> None:
        consumer.resume(partition)
        deadline = time.monotonic() + timeout_seconds
        while not waiting[partition] and (offset := consumer.position(partition)) < end:
            if time.monotonic() > deadline:
                where = f"{partition.topic}[{partition.partition}]@{offset}"
                raise StackError(f"no record came from {where} within {timeout_seconds:g} s; does the broker run?")
            for each, records in consumer.poll(timeout_ms=500).items():
                waiting[each].extend(records)
                held[each] += sum(map(bytes_of, records))
                if held[each] > HELD_BYTES:
                    consumer.pause(each)

    def records(partition: TopicPartition) -> Iterator[Any]:
        end = spans[partition].stop
        while True:
            if not waiting[partition]:
                fetch(partition, end)
            if not waiting[partition] or waiting[partition][0].offset >= end:
                consumer.pause(partition)
                return
            record = waiting[partition].popleft()
            held[partition] -= bytes_of(record)
            yield record

    return [records(partition) for partition in spans]


def bytes_of(record: Any) -> int:
    """Return the bytes of a record's key and value, and what Python needs to hold it."""
    return len(record.key or b"") + len(record.value or b"") + 500


def send_records(
    records: Iterable[tuple[float, Any]], send: Callable[[Any], Any], timeout_seconds: float
) -> dict[str, Any]:
    """Send records; return how many, and how late they were (ms): mean and largest.

    `send` returns a future; a limited number of them is open at a time.

    Raises:
        KafkaError: the broker did not take a record.
    """
    flying: deque[tuple[Any, int]] = deque()
    flying_bytes = count = 0
    late_sum = late_max = 0.0
    for late, record in records:
        flying.append((send(record), bytes_of(record)))
        flying_bytes += flying[-1][1]
        while flying and (flying[0][0].is_done or flying_bytes > UNACKNOWLEDGED_BYTES):
            future, sent_bytes = flying.popleft()
            future.get(timeout=timeout_seconds)
            flying_bytes -= sent_bytes
        count, late_sum, late_max = count + 1, late_sum + late, max(late_max, late)
    for future, _ in flying:
        future.get(timeout=timeout_seconds)
    late_ms = {"mean": round(late_sum / max(count, 1) * 1000, 3), "max": round(late_max * 1000, 3)}
    return {"records": count, "late_ms": late_ms}


def open_target(settings: Settings, topic: str, into: str | None, partitions: int) -> str:
    """Return the topic to send to: `into`, or a new one; made like the replayed one where it is missing.

    Raises:
        StackError: there is such a topic already, it has too few partitions, or it puts times of its own on records.
    """
    target = into or f"{topic}-replay"
    with kafka.connect_admin(settings) as admin:
        is_new = target not in admin.list_topics()
        configs = admin.describe_configs([ConfigResource("TOPIC", topic if is_new else target)])["topic"]
        if is_new:
            own = {name: each["value"] for name, each in configs[topic].items() if each["config_source"] == OWN}
            own["message.timestamp.type"] = "CreateTime"
            admin.create_topics(
                {
                    target: {
                        "num_partitions": partitions,
                        "replication_factor": kafka.CLUSTER_DEFAULT,
                        "configs": own,
                    }
                },
                wait_for_metadata=True,
            )
            return target
        if into is None:
            raise StackError(f"topic {target} is there already; to send to it all the same: --into {target}")
        if configs[target].get("message.timestamp.type", {}).get("value") == "LogAppendTime":
            raise StackError(f"topic {target} puts its own times on records (LogAppendTime); expected CreateTime")
        [about] = admin.describe_topics([target])
        if len(about["partitions"]) < partitions:
            raise StackError(f"{target} has {len(about['partitions'])} partitions; expected at least {partitions}")
    return target


def replay_topic(settings: Settings, wanted: Replay) -> dict[str, Any]:
    """Replay a topic and return the summary.

    Raises:
        StackError: there is nothing to replay, no such topic, or the target will not do.
        KafkaError: a record could not be read or sent.
    """
    from rich.console import Console
    from rich.progress import Progress

    topic, speed = wanted.topic, wanted.speed
    console, timeout = Console(stderr=True), settings.wait_timeout_seconds
    with closing(kafka.connect_consumer(settings, **kafka.HISTORY)) as consumer:
        spans = find_spans(consumer, topic, wanted.first, wanted.last)
        target = open_target(settings, topic, wanted.into, len(consumer.partitions_for_topic(topic)))
        total = sum(map(len, spans.values()))
        begin = time.monotonic()
        with (
            kafka.connect_producer(settings, linger_ms=20 if math.isinf(speed) else 0) as producer,
            Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            producer.partitions_for(target)  # asks the broker now, not when the first record is due
            task, step = progress.add_task(f"{topic} -> {target}", total=total), 1000 if math.isinf(speed) else 1

            def send(record: Any) -> Any:
                if record.offset % step == 0:
                    progress.advance(task, step)
                headers = [(name, value or b"") for name, value in record.headers]  # the client sends no null there
                place = {"partition": record.partition, "timestamp_ms": record.timestamp}
                return producer.send(target, key=record.key, value=record.value, headers=headers, **place)

            records = paced(by_time(read_spans(consumer, spans, timeout)), speed, time.monotonic, time.sleep)
            sent = send_records(records, send, timeout)
    seconds = round(time.monotonic() - begin, 3)
    offsets = {each.partition: {"from": span.start, "to": span.stop} for each, span in spans.items()}
    about = {"topic": topic, "into": target, "offsets": offsets, "gaps": total - sent["records"], "seconds": seconds}
    return about | {name: value for name, value in sent.items() if name != "late_ms" or math.isfinite(speed)}


def read_position(_: click.Context, __: click.Parameter, text: str | None) -> Position | None:
    """Read the value of --from or --to."""
    return parse_position(text, now_ms()) if text else None


@click.command(cls=Command)
@click.option("--topic", required=True, help="The topic to send again.")
@click.option(
    "--from", "first", metavar="TIME|OFFSET", callback=read_position, help="From there on.  [default: the first record]"
)
@click.option("--to", "last", metavar="TIME|OFFSET", callback=read_position, help="Up to there.  [default: the end]")
@click.option(
    "--speed", metavar="1x|10x|max", default="1x", show_default=True, callback=lambda _, __, text: parse_speed(text)
)
@click.option("--into", metavar="TOPIC", help="Where to; --topic itself is allowed.  [default: T-replay, a new topic]")
def replay(**given: Any) -> None:
    """Send a topic's history again.

    Its records from --from up to --to go to another topic in order, as far apart as they were, divided by --speed.
    Key, value, headers, partition and time of each stay the same. It ends where the topic ended when it began.
    Progress goes to stderr, a summary as JSON to stdout.

    A time is 2026-11-22T10:00:00Z (UTC where no zone is named), 2026-11-22, or 15m, 2h, 1d for so long ago. An offset
    counts in each partition.

    Examples:
        fedstream replay --topic sensor-data-node-1 --from 2h --speed 10x
        fedstream replay --topic sensor-data-node-1 --from 2026-11-22 --to 2026-11-23 --speed max --into day
        fedstream replay --topic sensor-data-node-1 --from 0 --to 1000 --speed max
    """
    wanted = Replay(**given)
    try:
        summary = replay_topic(Settings.from_env(os.environ), wanted)
    except KafkaError as error:
        raise StackError(f"the replay of {wanted.topic} ended early: {error}") from error
    click.echo(json.dumps(summary))
