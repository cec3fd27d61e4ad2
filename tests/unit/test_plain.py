"""Plain readings in bulk: which records are taken, what they sum up to, and what is left."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from fedstream.spark.plain import Plain, take_apart

from fedstream.messages.topics import SENSOR_DATA, sensor_topic
from fedstream.settings import Settings

GOOD = b'{"sensor_id":"a","temperature":70.5,"vibration":0.5,"label":0}'
SETTINGS = Settings(temperature_max_celsius=100.0, vibration_max_g=2.0, max_value_bytes=200)


def reading(temperature: str = "70.5", vibration: str = "0.5", sensor_id: str = "a", more: str = "") -> bytes:
    """Return a reading as json.dumps writes it."""
    return (
        f'{{"sensor_id": "{sensor_id}", "temperature": {temperature}, "vibration": {vibration}, "label": 1{more}}}'
    ).encode()


def batch(*records: tuple[int | None, bytes | None]) -> pa.RecordBatch:
    """Return records, each (node or None, value), as Spark hands them over: one after the other of a partition."""
    nodes, values = zip(*records, strict=True)
    topics = [SENSOR_DATA if node is None else sensor_topic(node) for node in nodes]
    columns = {"value": pa.array(values, pa.binary()), "topic": topics}
    columns |= {"partition": pa.array([3] * len(records), pa.int32()), "offset": list(range(len(records)))}
    return pa.RecordBatch.from_pydict(columns)


def sums(plain: Plain, batches: Iterable[pa.RecordBatch]) -> dict[int | None, tuple[Any, ...]]:
    """Return (count, sums, sums of squares) of each node, and under None the number of odd records."""
    rows = [row for found in plain.sum_up(batches) for row in found.to_pylist() if row["odd"] is not None]
    assert all(row["rejected"] == 0 for row in rows)
    names = ("count", "sum_temperature", "sum_vibration", "sum_squared_temperature", "sum_squared_vibration")
    summed = {row["node"]: tuple(row[name] for name in names) for row in rows if row["node"] is not None}
    (odd,) = (row["odd"] for row in rows if row["node"] is None)
    return summed | {None: odd}


def withheld(plain: Plain, batches: Iterable[pa.RecordBatch]) -> list[int]:
    """Return how many odd records have no value, as each row that tells it does."""
    rows = [row for found in plain.sum_up(batches) for row in found.to_pylist()]
    return [row["withheld"] for row in rows if row["withheld"] is not None]


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        reading(),
        reading("-0"),
        reading("100"),
        reading("1.000000000000001"),
        reading(vibration="0"),
        reading(vibration="2.0"),
        reading(more=', "event_time": 1795350166036'),
        reading(sensor_id="[x] y!"),
    ],
)
def test_a_plain_reading_within_the_limits_is_taken(value):
    is_plain, readings = take_apart(pa.array([value], pa.binary()), SETTINGS)
    assert is_plain.to_pylist() == [True]
    assert len(readings) == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"hello",
        b" " + GOOD,
        GOOD + b"\n",
        GOOD + b"\n" + GOOD,
        GOOD.replace(b'"a"', b'"\xff"'),
        reading(sensor_id=""),
        reading(sensor_id="x" * 200),
        reading("100.01"),
        reading("-100.1"),
        reading("1e1"),
        reading("NaN"),
        reading("1" * 16),
        reading(vibration="-0.1"),
        reading(vibration="2.01"),
        reading(more=', "temperature": 20'),
        reading(more=', "event_time": 1.5'),
        reading().replace(b'"label": 1', b'"label": 2'),
    ],
)
def test_any_other_record_is_left(value):
    is_plain, readings = take_apart(pa.array([value, GOOD], pa.binary()), SETTINGS)
    assert is_plain.to_pylist() == [False, True]
    assert readings.to_pylist() == [{"sensor_id": "a", "temperature": 70.5, "vibration": 0.5}]


def tight(**fields: str) -> bytes:
    """Return a reading as sensors write it, without spaces."""
    return reading(**fields).replace(b", ", b",").replace(b": ", b":")


EVENT = ', "event_time": 1795350166036'


@pytest.mark.parametrize(
    "values",
    [
        [tight(), tight(temperature="-0.25", sensor_id="b")],
        [tight(more=EVENT), tight(temperature="81", sensor_id="b", more=EVENT)],
        [tight(), tight(more=EVENT), tight(sensor_id="b")],
        [tight(more=EVENT), tight(sensor_id="b")],
        [tight(), reading()],
        [reading(), tight()],
        [tight(sensor_id="x,y")],
        [tight(), tight(sensor_id="x,y", more=EVENT), tight(sensor_id=",")],
        [tight(sensor_id="x,12345678901234567")],
        [tight(sensor_id="x,yyyyyyyyyyyyyy99,y"), tight(sensor_id="x,yyyyyyyyyyyyyy99,y")],
        [tight(sensor_id="x,yyyyyyyyyyyyyy99,yyyyyyyyyyyy0.25,y")] * 2,
        [tight(sensor_id="a b"), tight(sensor_id="{:}")],
    ],
)
def test_whatever_their_form_plain_readings_are_what_a_json_reader_says(values):
    is_plain, readings = take_apart(pa.array(values, pa.binary()), Settings(temperature_max_celsius=100.0))
    assert is_plain.to_pylist() == [True] * len(values)
    assert readings.to_pylist() == [
        {name: json.loads(value)[name] for name in ("sensor_id", "temperature", "vibration")} for value in values
    ]


def test_each_node_is_summed_up_over_all_batches_and_the_odd_records_are_counted():
    # 70.5 + 80.25 = 150.75, 70.5² + 80.25² = 4970.25 + 6440.0625 = 11410.3125, 0.5² + 0.125² = 0.265625
    first = batch((1, reading()), (2, b"hello"), (2, reading("-0.75", "0")))
    second = batch((1, reading("80.25", "0.125")), (1, None))
    assert sums(Plain(SETTINGS), [first, second]) == {
        1: (2, 150.75, 0.625, 11410.3125, 0.265625),
        2: (1, -0.75, 0.0, 0.5625, 0.0),
        None: 2,
    }
    assert withheld(Plain(SETTINGS), [first, second, second]) == [2]
    assert withheld(Plain(SETTINGS), [first]) == [0]
    assert sums(Plain(SETTINGS), []) == {None: 0}
    assert sums(Plain(SETTINGS), [batch((1, b""))]) == {None: 1}


def test_on_a_shared_topic_the_sensor_tells_the_node_and_strangers_are_left_out():
    plain = Plain(SETTINGS, {"a": 1, "b": 2, "c": 1})
    records = batch(*((None, reading(sensor_id=name)) for name in ("c", "b", "stranger", "a")))
    assert sums(plain, [records]) == {1: (2, 141.0, 1.0, 9940.5, 0.5), 2: (1, 70.5, 0.5, 4970.25, 0.25), None: 0}


def test_readings_of_a_topic_without_a_number_are_nobodys():
    records = batch((2, reading()), (None, reading()), (12, reading("80.25", "0.125")))
    assert sums(Plain(SETTINGS), [records]) == {
        2: (1, 70.5, 0.5, 4970.25, 0.25),
        12: (1, 80.25, 0.125, 6440.0625, 0.015625),
        None: 0,
    }


def test_what_is_summed_up_and_what_is_passed_on_are_all_records_and_none_twice():
    values = [GOOD, b"hello", reading("100.01"), reading("99"), None, reading(vibration="3")]
    records = batch(*((1, value) for value in values))
    rows = [row for found in Plain(SETTINGS).sum_up([records, records]) for row in found.to_pylist()]
    odd = [(row["value"], row["topic"], row["partition"], row["offset"]) for row in rows if row["topic"]]
    left = [(values[offset], sensor_topic(1), 3, offset) for offset in (1, 2, 4, 5)]
    assert odd == left * 2
    assert all(row["count"] is None and row["sum_temperature"] is None for row in rows if row["topic"])
    assert sums(Plain(SETTINGS), [records, records])[None] == 8
    assert sums(Plain(SETTINGS), [records, records])[1][0] == 4
