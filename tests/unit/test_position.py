"""Times and offsets: how they are typed, which offsets they mean, and what a Spark source is told."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from fake_broker import Broker
from kafka import TopicPartition

from fedstream.broker.position import (
    Position,
    find_spans,
    offsets_at,
    parse_position,
    parse_start,
    show_time,
    start_option,
    start_options,
)
from fedstream.errors import StackError
from fedstream.settings import Settings

TEN = 1_795_341_600_000  # `date -u -d 2026-11-22T10:00:00Z +%s`, in ms


@pytest.fixture
def broker(monkeypatch):
    return Broker().install(monkeypatch)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2026-11-22T10:00:00Z", TEN),
        ("2026-11-22T10:00:00", TEN),  # without a zone it is UTC
        ("2026-11-22T10:00", TEN),
        ("2026-11-22 10:00", TEN),
        ("2026-11-22T12:00:00+02:00", TEN),
        ("2026-11-22T10:00:00.250Z", TEN + 250),
        ("2026-11-22", TEN - 36_000_000),  # ten hours before
        ("1970-01-01", 0),
        ("0s", TEN + 7),
        ("90s", TEN + 7 - 90_000),
        ("15m", TEN + 7 - 900_000),
        ("2h", TEN + 7 - 7_200_000),
        ("1d", TEN + 7 - 86_400_000),
        ("2h ago", TEN + 7 - 7_200_000),
    ],
)
def test_a_time_is_read(text, time_ms):
    assert parse_position(text, TEN + 7) == Position(time_ms=time_ms)


def test_a_number_is_an_offset():
    assert parse_position("0", TEN) == Position(offset=0)
    assert parse_position("1795341600000", TEN) == Position(offset=1_795_341_600_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "1.5",
        "2x",
        "h",
        "10:00",
        "2026-13-01",
        "2026-11-22T25:00",
        "1969-12-31",
        "999999d",
        "999999999d",
        "٣",
    ],
)
def test_anything_else_is_refused_with_what_is_expected(text):
    with pytest.raises(click.BadParameter, match=r"expected a time .*2026-11-22T10:00:00Z.* or an offset"):
        parse_position(text, TEN)


def test_a_position_is_shown_as_it_can_be_typed_again():
    assert str(Position(time_ms=TEN)) == "2026-11-22T10:00:00Z"
    assert str(Position(offset=17)) == "17"
    for time_ms in (TEN, TEN + 1, TEN + 999, 0):
        assert parse_position(show_time(time_ms), 0) == Position(time_ms=time_ms)


def test_a_job_starts_from_a_position_that_stays_the_same():
    assert parse_start("2026-11-22T10:00:00Z", TEN) == Position(time_ms=TEN)
    assert parse_start("17", TEN) == Position(offset=17)
    with pytest.raises(click.BadParameter, match=r"'2h' is another time .* such as 2026-11-22T08:00:00Z"):
        parse_start("2h", TEN)
    with pytest.raises(click.BadParameter, match="2026-11-22T10:00:00Z lies in the future; it is now 2026-11-22T09:59"):
        parse_start("2026-11-22T10:00:00Z", TEN - 1)
    with pytest.raises(click.BadParameter, match=r"expected a fixed time .* or an offset") as refused:
        parse_start("noon", TEN)
    assert "15m" not in str(refused.value)  # which would be refused next


def test_the_option_of_the_jobs_reads_a_position():
    @click.command()
    @start_option
    def job(start):
        click.echo(repr(start))

    assert CliRunner().invoke(job, []).output == "None\n"
    assert CliRunner().invoke(job, ["--from", "5"]).output == f"{Position(offset=5)!r}\n"
    result = CliRunner().invoke(job, ["--from", "5m"])
    assert result.exit_code == 2
    assert "Invalid value for '--from': '5m' is another time" in result.output


# --- which offsets they mean


@pytest.fixture
def consumer(broker):
    """Return a consumer of a topic of three partitions: offsets 0 to 4, 2 to 3 (the others expired), and none."""
    broker.make("t", 3)
    for time_ms in (100, 300, 200, 400):
        broker.add("t", 0, time_ms)
    broker.add("t", 1, 250, offset=2)
    broker.starts[TopicPartition("t", 1)] = 2
    from fedstream.broker import kafka

    return kafka.connect_consumer(Settings())


PARTITIONS = [TopicPartition("t", number) for number in range(3)]


@pytest.mark.parametrize(
    ("position", "offsets"),
    [
        (Position(time_ms=0), [0, 2, 0]),
        (Position(time_ms=100), [0, 2, 0]),
        (Position(time_ms=101), [1, 2, 0]),
        (Position(time_ms=251), [1, 3, 0]),  # none in partition 1: its next one, offset 3
        (Position(time_ms=401), [4, 3, 0]),
        (Position(offset=0), [0, 2, 0]),  # partition 1 begins at 2
        (Position(offset=3), [3, 3, 0]),
        (Position(offset=4), [4, 3, 0]),
    ],
    ids=str,
)
def test_a_position_is_an_offset_in_each_partition(consumer, position, offsets):
    assert list(offsets_at(consumer, PARTITIONS, position).values()) == offsets


def test_an_offset_behind_the_end_of_all_is_an_error_that_says_how_a_time_is_typed(consumer):
    with pytest.raises(StackError, match=r"offset 5 lies behind the end \(t\[0\]: 0 to 4, .*; a time is typed like 20"):
        offsets_at(consumer, PARTITIONS, Position(offset=5))


@pytest.mark.parametrize(
    ("first", "last", "spans"),
    [
        (None, None, [range(0, 4), range(2, 3)]),
        (None, Position(time_ms=300), [range(0, 1), range(2, 3)]),
        (Position(time_ms=200), Position(time_ms=251), [range(2, 3)]),  # in partition 0 both are offset 1, time 300
        (Position(time_ms=300), None, [range(1, 4)]),
        (Position(offset=2), Position(offset=3), [range(2, 3), range(2, 3)]),
    ],
)
def test_a_span_goes_from_the_first_position_up_to_the_last_one(consumer, first, last, spans):
    assert list(find_spans(consumer, "t", first, last).values()) == spans


@pytest.mark.parametrize(
    ("topic", "first", "last", "text"),
    [
        ("u", None, None, "there is no topic u; make topics lists those there are"),
        (
            "t",
            Position(time_ms=500),
            None,
            "has no record from 1970-01-01T00:00:00.500Z to its end; it holds offsets 0 to",
        ),
        (
            "t",
            Position(time_ms=300),
            Position(time_ms=100),
            "has no record from 1970-01-01T00:00:00.300Z to 1970-01-01T0",
        ),
        ("t", None, Position(time_ms=0), "has no record from the first record to 1970-01-01T00:00:00Z"),
        (
            "t",
            Position(offset=1),
            None,
            "records from offset 1 on have expired; topic t holds offsets 0 to 4 in partition 0, 2",
        ),
        ("t", Position(offset=3), Position(offset=3), "has no record from 3 to 3"),
        ("t", Position(offset=9), None, "offset 9 lies behind the end"),
    ],
)
def test_a_span_without_a_record_is_an_error_that_says_what_there_is(consumer, topic, first, last, text):
    with pytest.raises(StackError) as caught:
        find_spans(consumer, topic, first, last)
    assert text in caught.value.message


# --- what a Spark source is told


def test_without_a_position_a_source_reads_as_before(broker):
    assert start_options(Settings(), "t", None) == {}


def test_a_source_starts_from_a_time_and_a_partition_without_records_since_is_no_error(broker):
    options = start_options(Settings(), "t", Position(time_ms=TEN))
    assert options == {"startingTimestamp": str(TEN), "startingOffsetsByTimestampStrategy": "latest"}
    assert broker.consumers == [], "Spark looks it up itself"


def test_a_source_starts_from_an_offset_of_each_partition_there_is(broker):
    broker.make("a-1", 2)
    broker.make("a-2", 1)
    broker.make("b", 1)
    for topic, partition, number in (("a-1", 0, 9), ("a-1", 1, 3), ("a-2", 0, 7)):
        for time_ms in range(number):
            broker.add(topic, partition, time_ms)
    both = {"a-1": {"0": 5, "1": 3}, "a-2": {"0": 5}}
    for topics in ("a-1,a-2", "a-.*"):
        options = start_options(Settings(), topics, Position(offset=5))
        assert json.loads(options.pop("startingOffsets")) == both
        assert options == {}
    assert all(consumer.is_closed for consumer in broker.consumers)
    with pytest.raises(StackError, match="offset 8 lies behind the end"):
        start_options(Settings(), "a-2", Position(offset=8))
