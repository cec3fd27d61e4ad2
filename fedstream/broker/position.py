"""A position in a topic, a time or an offset: how it is typed, and which offsets it means.

What `fedstream replay` and the option `--from` of the jobs share.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from kafka import TopicPartition

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
AGO = re.compile(r"([0-9]{1,9})([smhd])(?: ago)?")
EXPECTED = "a time (2026-11-22T10:00:00Z, 2026-11-22, or 15m for 15 minutes ago) or an offset (1000)"
EXPECTED_START = "a fixed time (2026-11-22T10:00:00Z or 2026-11-22) or an offset (1000)"


@dataclass(frozen=True)
class Position:
    """A time (ms since 1970), or else an offset, which counts in each partition."""

    time_ms: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        if self.time_ms is None:
            return str(self.offset)
        return show_time(self.time_ms)


def show_time(time_ms: int) -> str:
    """Return a time (ms since 1970) as it can be typed again: 2026-11-22T10:00:00Z."""
    precision = "milliseconds" if time_ms % 1000 else "seconds"
    return (EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec=precision).replace("+00:00", "Z")


def parse_position(text: str, now_ms: int, expected: str = EXPECTED) -> Position:
    """Read a time, a time before now, or an offset. A time without a zone is UTC; `expected` is said of anything else.

    Raises:
        click.BadParameter: it is none of them, or a time before 1970.
    """
    if re.fullmatch(r"[0-9]{1,18}", text):
        return Position(offset=int(text))
    if ago := AGO.fullmatch(text):
        moment = EPOCH + timedelta(milliseconds=now_ms)
    try:
        if ago:
            moment -= timedelta(**{UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        time_ms = (moment - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        time_ms = -1
    if time_ms < 0:
        msg = f"{text!r}; expected {expected}"
        raise click.BadParameter(msg)
    return Position(time_ms=time_ms)


def parse_start(text: str, now_ms: int) -> Position:
    """Read the position that a job starts from: one that is the same when the job is started again.

    Raises:
        click.BadParameter: it is no position, it moves with the clock, or it lies in the future.
    """
    position = parse_position(text, now_ms, EXPECTED_START)
    if AGO.fullmatch(text):
        msg = f"{text!r} is another time when the job is started again; expected a fixed one, such as {position}"
        raise click.BadParameter(msg)
    if position.time_ms is not None and position.time_ms > now_ms:
        msg = f"{position} lies in the future; it is now {show_time(now_ms)}"
        raise click.BadParameter(msg)
    return position


def now_ms() -> int:
    """Return the time now (ms since 1970)."""
    return time.time_ns() // 1_000_000


start_option = click.option(
    "--from",
    "start",
    metavar="TIME|OFFSET",
    callback=lambda _, __, text: parse_start(text, now_ms()) if text else None,
    help="Start from there (a fixed time, such as 2026-11-22T10:00:00Z, or an offset) with a fresh checkpoint; again: "
    "go on from that one.  [default: from the first record]",
)


def offsets_at(consumer: Any, partitions: Iterable[Any], position: Position) -> dict[Any, int]:
    """Return for each partition the offset of its first record at or after the position.

    Where there is none, it is the offset of the next record to come; where an offset has expired, that of the first
    record.

    Raises:
        StackError: the offset lies behind the end of every partition.
    """
    partitions = list(partitions)
    starts, ends = consumer.beginning_offsets(partitions), kafka.ends_of(consumer, partitions)
    if position.time_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, position.time_ms))
        return {each: found[each].offset if found.get(each) else ends[each] for each in partitions}
    offset = position.offset or 0
    if offset > max(ends.values(), default=offset):
        what = ", ".join(f"{each.topic}[{each.partition}]: {starts[each]} to {ends[each]}" for each in partitions)
        raise StackError(f"offset {offset} lies behind the end ({what}); a time is typed like {show_time(now_ms())}")
    return {each: min(max(offset, starts[each]), ends[each]) for each in partitions}


def find_spans(consumer: Any, topic: str, first: Position | None, last: Position | None) -> dict[TopicPartition, range]:
    """Return the offsets to replay of each partition, without the last position's own; at most what there is now.

    Raises:
        StackError: there is no such topic, no record in between, or the first ones have expired.
    """
    partitions = sorted(kafka.partitions_of(consumer, topic))
    if not partitions:
        raise StackError(f"there is no topic {topic}; make topics lists those there are")
    oldest, newest = consumer.beginning_offsets(partitions), kafka.ends_of(consumer, partitions)
    starts = offsets_at(consumer, partitions, first) if first else oldest
    ends = offsets_at(consumer, partitions, last) if last else newest
    holds = ", ".join(f"{oldest[each]} to {newest[each]} in partition {each.partition}" for each in partitions)
    if first and first.offset is not None and first.offset < max(oldest.values()):
        raise StackError(f"records from offset {first} on have expired; topic {topic} holds offsets {holds}")
    spans = {
        each: range(starts[each], min(ends[each], newest[each])) for each in partitions if starts[each] < ends[each]
    }
    if not spans:
        between = f"from {first or 'the first record'} to {last or 'its end'}"
        raise StackError(f"topic {topic} has no record {between}; it holds offsets {holds}")
    return spans


def start_options(settings: Settings, topics: str, start: Position | None) -> dict[str, str]:
    """Return the options of a Spark source that reads topics (`a,b`, or a pattern with `*`) from a position on.

    They count where there is no checkpoint yet; else Spark goes on from that.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
        StackError: the offset lies behind the end of every partition.
    """
    if start is None:
        return {}
    if start.time_ms is not None:
        # The strategy is for a partition without a record since then: it starts with the next one, and is no error.
        return {"startingTimestamp": str(start.time_ms), "startingOffsetsByTimestampStrategy": "latest"}
    with closing(kafka.connect_consumer(settings)) as consumer:
        partitions = kafka.partitions_of(consumer, topics)
        offsets: dict[str, dict[str, int]] = {each.topic: {} for each in partitions}
        for each, offset in offsets_at(consumer, partitions, start).items():
            offsets[each.topic][str(each.partition)] = offset
    return {"startingOffsets": json.dumps(offsets)}
