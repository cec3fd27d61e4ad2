"""Readings on the executors: what nodes' records sum up to, what can be learned from, and what is rejected."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from fedstream.messages.dead_letters import DeadLetter
from fedstream.messages.topics import SENSOR_DATA, sensor_topic
from fedstream.settings import Settings
from fedstream.spark import readings
from fedstream.spark.readings import LABELLED, SUMS, NodeReadings

SETTINGS = Settings(features="temperature:-100:100:1,vibration:0:2:100", max_value_bytes=200)
Sums = dict[int, tuple[int, int, list[float], list[float]]]


def reading(
    temperature: str = "70.5", vibration: str = "0.5", sensor_id: str = '"a"', label: str | None = "1"
) -> bytes:
    """Return a reading as json.dumps writes it."""
    labelled = "" if label is None else f', "label": {label}'
    return f'{{"sensor_id": {sensor_id}, "temperature": {temperature}, "vibration": {vibration}{labelled}}}'.encode()


def batch(*records: tuple[int | None, bytes | None], partition: int = 3, first: int = 0) -> pa.RecordBatch:
    """Return records, each (node, or None for the shared topic, and value), one after the other of a partition."""
    columns = {
        "value": pa.array([value for _, value in records], pa.binary()),
        "topic": pa.array([SENSOR_DATA if node is None else sensor_topic(node) for node, _ in records], pa.string()),
        "partition": pa.array([partition] * len(records), pa.int32()),
        "offset": pa.array(range(first, first + len(records)), pa.int64()),
    }
    return pa.RecordBatch.from_pydict(columns)


class Job:
    """The records of some nodes, and the dead letters that came of them."""

    def __init__(self, sensors: dict[str, int] | None = None, settings: Settings = SETTINGS) -> None:
        """Start without a dead letter."""
        self.portions: list[list[DeadLetter]] = []
        self.node_readings = NodeReadings(settings, sensors, self.portions.append)

    def sums(self, *batches: pa.RecordBatch) -> Sums:
        """Return (count, rejected, sums, sums of squares) of each node."""
        (found,) = self.node_readings.sum_up(batches)
        assert found.schema == SUMS
        rows = found.to_pylist()
        assert len({row["node"] for row in rows}) == len(rows)
        return {row["node"]: (row["count"], row["rejected"], row["sums"], row["squares"]) for row in rows}

    def labelled(self, *batches: pa.RecordBatch) -> list[tuple[Any, ...]]:
        """Return (node, partition, offset, values, label) of what can be learned from."""
        found = list(self.node_readings.labelled(batches))
        assert len(found) == len(batches)
        assert all(each.schema == LABELLED for each in found)
        return [tuple(row.values()) for each in found for row in each.to_pylist()]

    @property
    def places(self) -> list[tuple[str, int, int]]:
        """The places of the rejected records."""
        return [(letter.topic, letter.partition, letter.offset) for letter in self.letters]

    @property
    def letters(self) -> list[DeadLetter]:
        """All dead letters."""
        return [letter for portion in self.portions for letter in portion]


@pytest.mark.parametrize(
    "value",
    [
        reading(),
        reading("-0"),
        reading("100"),
        reading("1.000000000000001"),
        reading("1e1"),
        reading("1" + "0" * 18 + "e-17"),
        reading(vibration="0"),
        reading(vibration="2.0"),
        reading(sensor_id='"[x] y!"'),
        reading(sensor_id='"x,12345678901234567"'),
        reading(sensor_id='"{:}"'),
        reading(sensor_id="7"),
        reading().replace(b" ", b""),
        b" " + reading() + b"\n",
        reading(label='1, "event_time": 1795350166036'),
        reading(label='1, "more": 20'),
    ],
)
def test_a_reading_is_counted_and_none_is_rejected(value):
    job = Job()
    ((node, (count, rejected, _, _)),) = job.sums(batch((1, value))).items()
    assert (node, count, rejected, job.letters) == (1, 1, 0, [])


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"hello",
        reading() + b"\n" + reading(),
        reading(sensor_id='"\xff"').replace(b"\xc3", b""),
        reading(sensor_id='""'),
        reading(sensor_id=f'"{"x" * 200}"'),
        reading("100.01"),
        reading("-100.1"),
        reading("NaN"),
        reading("1" * 16),
        reading(vibration="-0.1"),
        reading(vibration="2.01"),
        reading(label='1, "temperature": 200'),
        reading(label='1, "event_time": "soon"'),
        reading(label="2"),
        reading(label=None),
    ],
)
def test_any_other_record_is_rejected_with_its_bytes_its_place_and_a_reason(value):
    job = Job()
    assert job.sums(batch((1, reading()), (1, value), (1, reading()))) == {1: (2, 1, [141.0, 1.0], [9940.5, 0.5])}
    (letter,) = job.letters
    assert (letter.topic, letter.partition, letter.offset, letter.by) == ("sensor-data-node-1", 3, 1, "fog-1")
    assert letter.value == (None if value is None else base64.b64encode(value).decode())
    assert "expected" in letter.reason or letter.reason.startswith("not JSON")


def test_each_node_is_summed_up_over_all_batches_in_one_pass():
    # 70.5 + 80.25 = 150.75, 70.5² + 80.25² = 4970.25 + 6440.0625 = 11410.3125, 0.5² + 0.125² = 0.265625
    first = batch((1, reading()), (2, b"hello"), (2, reading("-0.75", "0")))
    second = batch((1, reading("80.25", "0.125")), (1, None), partition=0, first=40)
    job = Job()
    assert job.sums(first, second) == {
        1: (2, 1, [150.75, 0.625], [11410.3125, 0.265625]),
        2: (1, 1, [-0.75, 0.0], [0.5625, 0.0]),
    }
    assert job.places == [("sensor-data-node-2", 3, 1), ("sensor-data-node-1", 0, 41)]
    assert [letter.reason for letter in job.letters][1] == "empty value; expected a JSON object"


def test_a_node_that_sent_only_bad_records_has_sums_of_zero():
    assert Job().sums(batch((4, b"")), batch((4, b"{"))) == {4: (0, 2, [0.0, 0.0], [0.0, 0.0])}


def test_no_record_makes_no_row():
    assert Job().sums() == {}
    assert Job().sums(batch()) == {}
    assert Job().labelled(batch()) == []


def test_there_are_as_many_sums_as_features():
    settings = Settings(
        features="x:0:10,y:0:10,z:-10:10", fields="x=at.x,y=at.y,z=at.z,sensor_id=id", labels="optional"
    )
    values = (b'{"id":1,"at":{"x":1,"y":2,"z":-3}}', b'{"id":2,"at":{"x":0.5,"y":4,"z":0},"label":1}')
    job = Job(settings=settings)
    assert job.sums(batch(*((1, value) for value in values))) == {1: (2, 0, [1.5, 6.0, -3.0], [1.25, 20.0, 9.0])}
    assert job.labelled(batch(*((1, value) for value in values))) == [(1, 3, 1, [0.5, 4.0, 0.0], 1)]


def test_on_a_shared_topic_the_sensor_tells_the_node_and_strangers_are_left_out():
    job = Job({"a": 1, "b": 2, "c": 1, "7": 2})
    names = ('"c"', '"b"', '"stranger"', '"a"', "7")
    records = batch(*((None, reading(sensor_id=name)) for name in names))
    assert job.sums(records) == {1: (2, 0, [141.0, 1.0], [9940.5, 0.5]), 2: (2, 0, [141.0, 1.0], [9940.5, 0.5])}
    assert [(node, offset) for node, _, offset, _, _ in job.labelled(records)] == [(1, 0), (2, 1), (1, 3), (2, 4)]
    assert job.letters == []


def test_on_a_shared_topic_a_bad_record_concerns_the_node_of_the_sensor_it_names():
    records = batch(
        (None, reading("2000", sensor_id='"a"')),
        (None, reading("2000", sensor_id='"b"')),
        (None, reading("2000", sensor_id='"stranger"')),
        (None, reading("2000", sensor_id="7")),
    )
    job = Job({"a": 1, "b": 2, "7": 2})
    none = [0.0, 0.0]
    assert job.sums(records) == {1: (0, 1, none, none), 2: (0, 2, none, none)}
    assert [place[2] for place in job.places] == [0, 1, 3]


@pytest.mark.parametrize("value", [b"hello", b"", None, b'{"sensor_id":"a"', reading(sensor_id='""'), b'{"label":0}'])
def test_a_record_that_names_no_sensor_is_rejected_by_node_1_alone(value):
    both, first, second = Job({"a": 1, "b": 2}), Job({"a": 1}), Job({"b": 2})
    records = batch((None, value))
    none = [0.0, 0.0]
    assert both.sums(records) == first.sums(records) == {1: (0, 1, none, none)}
    assert second.sums(records) == {}
    assert [len(job.letters) for job in (both, first, second)] == [1, 1, 0]


def test_readings_of_a_topic_without_a_number_are_nobodys():
    records = batch((2, reading()), (None, reading()), (None, b"hello"), (12, reading("80.25", "0.125")))
    job = Job()
    assert job.sums(records) == {
        2: (1, 0, [70.5, 0.5], [4970.25, 0.25]),
        12: (1, 0, [80.25, 0.125], [6440.0625, 0.015625]),
    }
    assert job.letters == []
    assert [(node, offset) for node, _, offset, _, _ in job.labelled(records)] == [(2, 0), (12, 3)]


def test_what_is_learned_and_what_is_rejected_are_all_records_and_none_twice():
    values = [reading(), b"hello", reading("100.01"), reading("99", label="0"), None, reading(vibration="3")]
    first = batch(*((1, value) for value in values))
    second = batch(*((2, value) for value in values), partition=5, first=100)
    job = Job()
    good = [([70.5, 0.5], 1), ([99.0, 0.5], 0)]
    assert job.labelled(first, second) == [
        (1, 3, 0, *good[0]),
        (1, 3, 3, *good[1]),
        (2, 5, 100, *good[0]),
        (2, 5, 103, *good[1]),
    ]
    assert job.letters == []  # they are rejected once, by the sums
    assert {node: found[:2] for node, found in job.sums(first, second).items()} == {1: (2, 4), 2: (2, 4)}
    assert job.places == [("sensor-data-node-1", 3, offset) for offset in (1, 2, 4, 5)] + [
        ("sensor-data-node-2", 5, offset) for offset in (101, 102, 104, 105)
    ]


def test_readings_without_a_label_count_and_are_not_learned_from():
    optional = Settings(features=SETTINGS.features, labels="optional")
    records = batch((1, reading(label=None)), (1, reading("80.25", "0.125")), (1, reading(label="null")))
    job = Job(settings=optional)
    # 2 * 70.5 + 80.25 = 221.25, 2 * 4970.25 + 6440.0625 = 16380.5625
    assert job.sums(records) == {1: (3, 0, [221.25, 1.125], [16380.5625, 0.515625])}
    assert job.labelled(records) == [(1, 3, 1, [80.25, 0.125], 1)]
    assert Job().sums(records)[1][:2] == (1, 2)  # where labels are required, the two are bad


def sizes(portions: Iterable[list[DeadLetter]]) -> list[int]:
    """Return how many dead letters each portion has."""
    return [len(portion) for portion in portions]


def test_dead_letters_are_sent_in_portions_of_bounded_number(monkeypatch):
    monkeypatch.setattr(readings, "MOST_LETTERS", 4)
    job = Job()
    found = job.sums(batch(*[(1, b"x")] * 10), batch(*[(1, b"y")] * 3, partition=0), batch((1, reading())))
    assert found[1][:2] == (1, 13)
    # No portion is larger than four, none is empty, and what a batch left over does not wait for the next one.
    assert sizes(job.portions) == [4, 4, 2, 3]
    assert [letter.offset for letter in job.letters] == [*range(10), *range(3)]


def test_dead_letters_are_sent_in_portions_of_bounded_size(monkeypatch):
    monkeypatch.setattr(readings, "MOST_LETTER_BYTES", 1000)
    job = Job()
    # 300 bytes are 400 in base64, so three letters pass 1000; those of no value weigh nothing.
    assert job.sums(batch(*[(1, b"x" * 300)] * 7, *[(1, None)] * 5))[1][:2] == (0, 12)
    assert sizes(job.portions) == [3, 3, 6]
