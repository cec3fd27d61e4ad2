"""Replays of a topic: the order and the times of what is sent, and what is refused."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from fake_broker import Broker
from kafka import TopicPartition
from kafka.errors import KafkaError

from fedstream.broker import kafka
from fedstream.commands import replay
from fedstream.commands.cli import main
from fedstream.commands.schedule import by_time, paced, parse_speed


class Clock:
    """A clock that only goes on while somebody sleeps."""

    def __init__(self):
        """Start at some time, as a monotonic clock does."""
        self.now = 1000.0
        self.slept = []

    def monotonic(self):
        """Return the seconds."""
        return self.now

    def sleep(self, seconds):
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


def records(*times):
    """Return records of one partition; a record's offset is its place."""
    return [SimpleNamespace(timestamp=time_ms, offset=offset) for offset, time_ms in enumerate(times)]


# --- the schedule


def test_partitions_are_merged_by_time():
    merged = list(by_time([records(10, 40, 50), records(20, 30, 60), []]))
    assert [(time_ms, record.timestamp) for time_ms, record in merged] == [(t, t) for t in (10, 20, 30, 40, 50, 60)]


def test_a_partition_keeps_its_order_though_its_times_go_back():
    merged = list(by_time([records(10, 50, 20, 60), records(30, 55)]))
    # 20 comes after 50 in its partition, so it is due with it; 30 of the other one comes before.
    assert [time_ms for time_ms, _ in merged] == [10, 30, 50, 50, 55, 60]
    assert [record.timestamp for _, record in merged] == [10, 30, 50, 20, 55, 60]


def test_records_are_read_one_by_one():
    def endless(first):
        for number in range(first, 10**9, 2):
            yield SimpleNamespace(timestamp=number)

    merged = by_time([endless(0), endless(1)])
    assert [next(merged)[0] for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("speed", "due"), [(1.0, [0, 2, 2, 62]), (10.0, [0, 0.2, 0.2, 6.2]), (0.5, [0, 4, 4, 124])])
def test_each_record_is_due_as_much_later_as_it_was_by_the_speed(speed, due):
    clock, sent = Clock(), []
    timed = ((record.timestamp, record) for record in records(5_000, 7_000, 7_000, 67_000))
    for late, _ in paced(timed, speed, clock.monotonic, clock.sleep):
        sent.append(clock.now - 1000)
        assert late == pytest.approx(0, abs=1e-9)
    assert sent == pytest.approx(due)


def test_at_full_speed_nobody_sleeps():
    clock = Clock()
    timed = ((record.timestamp, record) for record in records(0, 10**6, 10**9))
    assert len(list(paced(timed, math.inf, clock.monotonic, clock.sleep))) == 3
    assert clock.slept == []


def test_a_late_record_does_not_delay_those_behind_it():
    clock, late = Clock(), []
    timed = ((record.timestamp, record) for record in records(0, 1_000, 2_000, 10_000))
    for seconds, record in paced(timed, 1.0, clock.monotonic, clock.sleep):
        late.append(seconds)
        if record.timestamp == 0:
            clock.now += 5  # as a slow broker does
    # 5 s after the first one the next two were due 4 s and 3 s ago; the last one is due at 10 s.
    assert late == pytest.approx([0, 4, 3, 0])
    assert clock.now == pytest.approx(1010)


@pytest.mark.parametrize(("text", "speed"), [("1x", 1), ("10x", 10), ("0.5x", 0.5), ("250x", 250), ("max", math.inf)])
def test_a_speed_is_read(text, speed):
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "0.0x", "-1x", "10", "fast", "1e3x", "infx", "nanx", "MAX"])
def test_another_speed_is_refused(text):
    with pytest.raises(click.BadParameter, match="expected max, 1x, 10x or another number above 0 and an x"):
        parse_speed(text)


# --- the command


@pytest.fixture
def broker(monkeypatch):
    monkeypatch.setenv("WAIT_TIMEOUT_SECONDS", "0.1")
    return Broker().install(monkeypatch)


def call(*words):
    result = CliRunner().invoke(main, ["replay", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def call_json(*words):
    result = call(*words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def logs(broker, topic):
    """Return (time, key, value, headers) of each record of each partition."""
    return [
        [(each.timestamp, each.key, each.value, each.headers) for each in partition]
        for partition in broker.topics[topic]
    ]


def error(*words):
    result = call(*words)
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.fixture
def two(broker):
    """Return a broker with a topic of two partitions, three records in each."""
    broker.make("t", 2)
    for number, time_ms in enumerate((1_000, 3_000, 5_000)):
        broker.add("t", 0, time_ms, value=b"a%d" % number, key=b"a", headers=[("n", b"%d" % number), ("n", b"")])
        broker.add("t", 1, time_ms + 500, value=None, key=None)
    return broker


def test_a_copy_keeps_keys_values_headers_partitions_and_times(two):
    summary = call_json("--topic", "t", "--speed", "max")
    assert logs(two, "t-replay") == logs(two, "t")
    assert len(logs(two, "t-replay")[1]) == 3
    assert summary.pop("seconds") >= 0
    offsets = {"0": {"from": 0, "to": 3}, "1": {"from": 0, "to": 3}}
    assert summary == {"topic": "t", "into": "t-replay", "offsets": offsets, "gaps": 0, "records": 6}
    assert all(consumer.is_closed for consumer in two.consumers)


def test_a_new_topic_takes_over_what_was_set_for_the_old_one_but_not_its_clock(broker):
    broker.make("t", 3, max_message_bytes="2097152", message_timestamp_type="LogAppendTime")
    broker.add("t", 2, 1)
    call_json("--topic", "t", "--speed", "max", "--into", "u")
    assert len(broker.topics["u"]) == 3
    assert broker.configs["u"] == {"max.message.bytes": "2097152", "message.timestamp.type": "CreateTime"}


def test_a_part_between_two_times_or_offsets_is_replayed_without_its_end(two):
    start, end = "1970-01-01T00:00:03Z", "1970-01-01T00:00:05Z"
    summary = call_json("--topic", "t", "--from", start, "--to", end, "--speed", "max", "--into", "u")
    assert summary["offsets"] == {"0": {"from": 1, "to": 2}, "1": {"from": 1, "to": 2}}
    assert [[each[0] for each in log] for log in logs(two, "u")] == [[3_000], [3_500]]
    summary = call_json("--topic", "t", "--from", 1, "--speed", "max", "--into", "v")
    assert [[each[0] for each in log] for log in logs(two, "v")] == [[3_000, 5_000], [3_500, 5_500]]


def test_the_topic_itself_must_be_asked_for_and_its_copies_are_not_copied_again(two):
    before = logs(two, "t")
    summary = call_json("--topic", "t", "--into", "t", "--speed", "max")
    assert summary["records"] == 6
    assert logs(two, "t") == [log + log for log in before]


@pytest.mark.parametrize(("speed", "seconds"), [([], 4.5), (["--speed", "1x"], 4.5), (["--speed", "10x"], 0.45)])
def test_records_are_sent_as_far_apart_as_they_were_by_the_speed(two, monkeypatch, speed, seconds):
    clock = Clock()
    monkeypatch.setattr(replay, "time", clock)
    summary = call_json("--topic", "t", *speed)
    # From 1.0 s to 5.5 s, in six steps of which the first is none: 0.5, 1.5, 0.5, 1.5, 0.5.
    assert clock.slept == pytest.approx([part * seconds / 4.5 for part in (0.5, 1.5, 0.5, 1.5, 0.5)])
    assert summary["seconds"] == pytest.approx(seconds)
    assert summary["late_ms"] == {"mean": 0, "max": 0}
    assert two.linger_ms == 0


def test_compacted_offsets_aborted_records_and_markers_are_passed_over_and_counted(broker):
    broker.make("t")
    for offset in (3, 4, 9):
        broker.add("t", 0, offset, offset=offset)
    broker.ends[TopicPartition("t", 0)] = 12  # offsets 10 and 11 hold no record
    summary = call_json("--topic", "t", "--speed", "max")
    assert (summary["records"], summary["gaps"], summary["offsets"]) == (3, 9, {"0": {"from": 0, "to": 12}})


def test_records_that_expire_under_a_replay_are_an_error():
    assert kafka.HISTORY["auto_offset_reset"] == "none"


def test_memory_is_bounded_though_a_partition_waits_for_the_others_and_the_broker_is_slow(broker, monkeypatch):
    monkeypatch.setattr(replay, "HELD_BYTES", 20 * 1000)
    monkeypatch.setattr(replay, "UNACKNOWLEDGED_BYTES", 10 * 1000)
    broker.make("t", 2)
    for number in range(1000):
        broker.add("t", 0, number, value=bytes(500), key=b"")  # 500 and 500 for Python: 1000 bytes each
        broker.add("t", 1, 10_000 + number, value=bytes(500), key=b"")
    assert call_json("--topic", "t", "--speed", "max")["records"] == 2000
    assert logs(broker, "t-replay") == logs(broker, "t")
    assert broker.most_open == 11
    # Of partition 1: 20, the last poll's 3 and the one that the merge looks at; one poll of partition 0.
    assert broker.most_held <= 20 + 3 + 1 + 3


def test_a_null_in_a_header_is_sent_as_empty(broker):
    broker.make("t")
    broker.add("t", 0, 1, headers=[("h", None)])
    call_json("--topic", "t", "--speed", "max")
    assert logs(broker, "t-replay")[0][0][3] == [("h", b"")]


def test_what_will_not_do_as_a_target_is_refused_before_a_record_is_sent(two):
    two.make("t-replay", 2)
    two.make("one")
    two.make("clock", 2, message_timestamp_type="LogAppendTime")
    assert (
        error("--topic", "t") == "Error: topic t-replay is there already; to send to it all the same: --into t-replay\n"
    )
    assert error("--topic", "t", "--into", "one") == "Error: one has 1 partitions; expected at least 2\n"
    assert "clock puts its own times on records" in error("--topic", "t", "--into", "clock")
    assert two.sent == 0
    assert call_json("--topic", "t", "--into", "t-replay", "--speed", "max")["records"] == 6


def test_nothing_to_replay_makes_no_topic(two):
    assert "topic t has no record from 1970-01-01T00:00:09Z" in error("--topic", "t", "--from", "1970-01-01T00:00:09")
    assert "there is no topic u" in error("--topic", "u")
    assert list(two.topics) == ["t"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--into", "u"], "Missing option '--topic'"),
        (["--topic", "t", "--from", "noon"], "'noon'; expected a time"),
        (["--topic", "t", "--speed", "fast"], "'fast'; expected max, 1x"),
    ],
)
def test_options_that_are_missing_or_cannot_be_read_are_refused(two, words, text):
    result = call(*words)
    assert result.exit_code == 2
    assert text in result.output


def test_a_broker_that_takes_no_more_ends_the_replay_with_its_reason(two):
    two.fails_after, two.error = 4, KafkaError("record too large")
    assert (
        error("--topic", "t", "--speed", "max") == "Error: the replay of t ended early: KafkaError: record too large\n"
    )


def test_a_failure_is_noticed_before_the_next_record_is_sent_if_the_broker_has_told_it(two):
    two.is_quick, two.fails_after, two.error = True, 2, KafkaError("no")
    assert "the replay of t ended early" in error("--topic", "t", "--speed", "max")
    assert two.sent == 3


def test_a_broker_that_gives_no_more_ends_the_replay_in_time(two, monkeypatch):
    consumer = kafka.connect_consumer(None)
    monkeypatch.setattr(consumer, "poll", lambda timeout_ms: {})
    monkeypatch.setattr(kafka, "connect_consumer", lambda settings, **options: consumer)
    assert "no record came from t[0]@0 within 0.1 s; does the broker run?" in error("--topic", "t")
