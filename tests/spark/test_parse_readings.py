"""Which records are readings, and what is said of those that are not."""

from __future__ import annotations

import itertools
import re

import pyarrow as pa
import pytest
from fedstream.spark.plain import take_apart
from pyspark.sql import DataFrame, Row, SparkSession

from fedstream.messages.readings import READING_FIELDS
from fedstream.settings import Settings
from fedstream.spark.expressions import parse_readings

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"
LARGEST = 65_536  # bytes; the default of MAX_VALUE_BYTES


def reading(**fields: str | None) -> bytes:
    """Return a reading whose fields are given as they stand in JSON; a field that is None is left out."""
    texts = {"sensor_id": '"node-1"', "temperature": "72.5", "vibration": "0.0625", "label": "0"} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text is not None) + "}").encode()


def padded(size: int) -> bytes:
    """Return a reading of that many bytes."""
    value = reading(padding='""')
    return value.replace(b'""', b'"' + b"x" * (size - len(value)) + b'"')


GOOD = reading()

# What the record is, the record, and a telling part of the reason (a regular expression).
BAD = {
    "empty": (b"", "empty value"),
    "null": (None, "empty value"),
    "spaces only": (b" \n", "not JSON"),
    "a word": (b"hello", "not JSON"),
    "a number": (b"72.5", "not one JSON object"),
    "a string": (b'"node-1"', "not one JSON object"),
    "true": (b"true", "not one JSON object"),
    "the word null": (b"null", "not one JSON object"),
    "an empty array": (b"[]", "not one JSON object"),
    "an array of a reading": (b"[" + GOOD + b"]", "not one JSON object"),
    "two objects": (GOOD + GOOD, "not one JSON object"),
    "two objects on two lines": (GOOD + b"\n" + GOOD, "not one JSON object"),
    "two objects and a comma": (GOOD + b"," + GOOD, "not one JSON object"),
    "trailing garbage": (GOOD + b" garbage", "not one JSON object"),
    "a trailing brace": (GOOD + b"}", "not one JSON object"),
    "a trailing comma": (GOOD + b",", "not one JSON object"),
    "a trailing field": (GOOD + b',"more":1', "not one JSON object"),
    "a trailing reading": (GOOD + b',"reading":' + GOOD, "not one JSON object"),
    "a reading behind a null": (b'null,"reading":' + GOOD, "not one JSON object"),
    "leading garbage": (b"garbage " + GOOD, "not one JSON object"),
    "single quotes": (GOOD.replace(b'"', b"'"), "not one JSON object"),
    "names without quotes": (b'{sensor_id:"node-1",temperature:72.5,vibration:0.0625,label:0}', "not one JSON object"),
    "a comment": (b"/* ok */" + GOOD, "not one JSON object"),
    "a missing comma": (GOOD.replace(b",", b" ", 1), "not one JSON object"),
    "a comma too many": (GOOD.replace(b"}", b",}"), "not one JSON object"),
    "truncated at the end": (GOOD[:-1], "not one JSON object"),
    "truncated in a number": (b'{"sensor_id":"node-1","temperature":72.', "not one JSON object"),
    "truncated in the id": (b'{"sensor_id":"nod', "not one JSON object"),
    "truncated at once": (b"{", "not one JSON object"),
    "no field": (b"{}", "sensor_id is missing"),
    "nothing but unknown fields": (b'{"reading":{"sensor_id":"node-1"}}', "sensor_id is missing"),
    "deeply nested": (b"[" * 30_000, "not one JSON object"),
    "deeply nested in an unknown field": (
        reading(more="[" * 5_000 + "]" * 5_000),
        "not one JSON object",
    ),
    "not UTF-8 in the id": (GOOD.replace(b"node", b"n\xf8de"), "invalid UTF-8"),
    "not UTF-8 in an unknown field": (reading(more='"x"').replace(b'"x"', b'"\xff\xfe"'), "invalid UTF-8"),
    "bytes of no text": (bytes(range(128, 256)), "invalid UTF-8"),
    "UTF-8 of too many bytes": (GOOD.replace(b"node", b"\xc0\xaf"), "invalid UTF-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "invalid UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "not one JSON object"),
    "a NUL byte": (GOOD + b"\0", "not one JSON object"),
    "a byte too long": (padded(LARGEST + 1), "value of 65537 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "900 kB": (padded(900_000), "value of 900000 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "900 kB of no JSON": (b"x" * 900_000, "value of 900000 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "sensor_id missing": (reading(sensor_id=None), "sensor_id is missing or null"),
    "sensor_id null": (reading(sensor_id="null"), "sensor_id is missing or null"),
    "sensor_id empty": (reading(sensor_id='""'), "sensor_id .* expected a non-empty string"),
    "sensor_id a number": (reading(sensor_id="5"), "sensor_id is of the wrong type: got 5, expected"),
    "sensor_id an object": (reading(sensor_id='{"a":"b"}'), r"sensor_id is of the wrong type: got \{.*, expected"),
    "sensor_id an array": (reading(sensor_id='["a"]'), r"sensor_id is of the wrong type: got \[.*, expected"),
    "sensor_id true": (reading(sensor_id="true"), "sensor_id is of the wrong type: got true, expected"),
    "sensor_id a number beside a nested one that is text": (
        reading(sensor_id="5", meta='{"sensor_id":"x"}'),
        "sensor_id is of the wrong type: got 5, expected",
    ),
    "temperature missing": (reading(temperature=None), "temperature is missing or null"),
    "temperature null": (reading(temperature="null"), "temperature is missing or null"),
    "temperature a string": (reading(temperature='"72.5"'), "temperature is of the wrong type: got 72.5, expected"),
    "temperature true": (reading(temperature="true"), "temperature is of the wrong type: got true, expected"),
    "temperature an object": (reading(temperature="{}"), r"temperature is of the wrong type: got \{\}, expected"),
    "temperature an array": (reading(temperature="[72.5]"), r"temperature is of the wrong type: got \[.*, expected"),
    "temperature an empty string": (reading(temperature='""'), "temperature is .* expected a number"),
    "temperature NaN": (reading(temperature="NaN"), "temperature is NaN.*; expected finite numbers"),
    "temperature NaN in quotes": (
        reading(temperature='"NaN"'),
        "temperature is (NaN.*finite|of the wrong type: got NaN)",
    ),
    "temperature Infinity": (reading(temperature="Infinity"), "temperature is Infinity.*; expected finite numbers"),
    "temperature -Infinity": (reading(temperature="-Infinity"), "temperature is -Infinity.*; expected finite numbers"),
    "temperature Infinity in quotes": (reading(temperature='"Infinity"'), "temperature is (Inf.*finite|of the wrong)"),
    "temperature 1e999": (reading(temperature="1e999"), "temperature is Infinity.*; expected finite numbers"),
    "temperature -1e999": (reading(temperature="-1e999"), "temperature is -Infinity.*; expected finite numbers"),
    "temperature of 400 digits": (reading(temperature="1" + "0" * 399), "temperature is Infinity.*finite"),
    "temperature of 5000 digits": (reading(temperature="1" * 5_000), "."),
    "temperature just too low": (reading(temperature="-100.1"), "temperature is -100.1 °C; expected -100 to 1000"),
    "temperature just too high": (reading(temperature="1000.1"), "temperature is 1000.1 °C; expected -100 to 1000"),
    "temperature far too high": (reading(temperature="1e300"), "temperature is 1.0E300 °C; expected -100 to 1000"),
    "vibration missing": (reading(vibration=None), "vibration is missing or null"),
    "vibration null": (reading(vibration="null"), "vibration is missing or null"),
    "vibration a string": (reading(vibration='"0.05"'), "vibration is of the wrong type: got 0.05, expected"),
    "vibration false": (reading(vibration="false"), "vibration is of the wrong type: got false, expected"),
    "vibration an array": (reading(vibration="[]"), r"vibration is of the wrong type: got \[\], expected"),
    "vibration NaN": (reading(vibration="NaN"), "vibration is NaN; expected finite numbers"),
    "vibration NaN in quotes": (reading(vibration='"NaN"'), "vibration is (NaN; .*finite|of the wrong type: got NaN)"),
    "vibration Infinity": (reading(vibration="Infinity"), "vibration is Infinity; expected finite numbers"),
    "vibration 1e999": (reading(vibration="1e999"), "vibration is Infinity; expected finite numbers"),
    "vibration -Infinity": (reading(vibration="-Infinity"), "vibration is -Infinity"),
    "vibration negative": (reading(vibration="-0.001"), "vibration is -0.001 g; expected 0 to 1000"),
    "vibration just too strong": (reading(vibration="1000.1"), "vibration is 1000.1 g; expected 0 to 1000"),
    "label missing": (reading(label=None), "label is missing or null"),
    "label null": (reading(label="null"), "label is missing or null"),
    "label 2": (reading(label="2"), "label is 2; expected 0 or 1"),
    "label -1": (reading(label="-1"), "label is -1; expected 0 or 1"),
    "label 1.0": (reading(label="1.0"), "label is of the wrong type: got 1.0, expected the whole number 0 or 1"),
    "label 0.5": (reading(label="0.5"), "label is of the wrong type: got 0.5, expected the whole number 0 or 1"),
    "label true": (reading(label="true"), "label is of the wrong type: got true, expected"),
    "label a string": (reading(label='"1"'), "label is of the wrong type: got 1, expected"),
    "label an array": (reading(label="[1]"), r"label is of the wrong type: got \[1\], expected"),
    "label NaN": (reading(label="NaN"), "label is"),
    "label 2^32": (reading(label="4294967296"), "label is .*4294967296, expected the whole number 0 or 1"),
    "label 2^32 + 1": (reading(label="4294967297"), "label is .*4294967297, expected the whole number 0 or 1"),
    "event_time a string": (reading(event_time='"1700000000000"'), "event_time is of the wrong type"),
    "event_time with a fraction": (reading(event_time="1700000000000.5"), "event_time is of the wrong type"),
    "event_time true": (reading(event_time="true"), "event_time is of the wrong type"),
    "event_time an object": (reading(event_time="{}"), "event_time is of the wrong type"),
    "event_time 2^63": (reading(event_time="9223372036854775808"), "event_time is of the wrong type"),
}

# What the record is, the record, and the reading: sensor_id, temperature, vibration, label, event_time.
READ = {
    "plain": (GOOD, ("node-1", 72.5, 0.0625, 0, None)),
    "with event_time": (reading(event_time="1700000000000"), ("node-1", 72.5, 0.0625, 0, 1_700_000_000_000)),
    "with an event_time of null": (reading(event_time="null"), ("node-1", 72.5, 0.0625, 0, None)),
    "with unknown fields": (
        reading(unit='"°C"', tags='["a",{"label":7}]', meta='{"temperature":"x"}', nothing="null"),
        ("node-1", 72.5, 0.0625, 0, None),
    ),
    "in another order": (
        b'{"label":1,"vibration":0.0625,"meta":{},"temperature":72.5,"sensor_id":"s1"}',
        ("s1", 72.5, 0.0625, 1, None),
    ),
    "with white space everywhere": (
        b' \t\r\n{ "sensor_id" : "node-1" ,\n"temperature":\t72.5 , "vibration" : 0.0625 , "label" : 0 }\n ',
        ("node-1", 72.5, 0.0625, 0, None),
    ),
    "with whole numbers for temperature and vibration": (
        reading(temperature="72", vibration="0"),
        ("node-1", 72.0, 0.0, 0, None),
    ),
    "with exponents": (reading(temperature="7.25E1", vibration="625e-4"), ("node-1", 72.5, 0.0625, 0, None)),
    "with an id in Unicode": (reading(sensor_id='"nœud-1"'), ("nœud-1", 72.5, 0.0625, 0, None)),
    "with an id in escaped Unicode": (
        reading(sensor_id=r'"n\u0153ud-\ud83d\ude00"'),
        ("nœud-😀", 72.5, 0.0625, 0, None),
    ),
    "with a field name in escaped Unicode": (
        GOOD.replace(b"sensor_id", rb"sensor\u005fid"),
        ("node-1", 72.5, 0.0625, 0, None),
    ),
    "with an id of quotes and braces": (reading(sensor_id=r'"\"}{\\"'), ('"}{\\', 72.5, 0.0625, 0, None)),
    "with an id that is a digit": (reading(sensor_id='"5"'), ("5", 72.5, 0.0625, 0, None)),
    "at the lower limit": (reading(temperature="-100"), ("node-1", -100.0, 0.0625, 0, None)),
    "at the upper limit": (reading(temperature="1000.0"), ("node-1", 1000.0, 0.0625, 0, None)),
    "at the lower limit of vibration": (reading(vibration="0"), ("node-1", 72.5, 0.0, 0, None)),
    "at the upper limit of vibration": (reading(vibration="1000"), ("node-1", 72.5, 1000.0, 0, None)),
    "of the largest size": (padded(LARGEST), ("node-1", 72.5, 0.0625, 0, None)),
}


def parse(spark: SparkSession, values: list[bytes | None], settings: Settings) -> list[Row]:
    """Return the parsed records in their order."""
    records = [(bytearray(value) if value is not None else None, "t", 0, i) for i, value in enumerate(values)]
    parsed = parse_readings(spark.createDataFrame(records, RECORD_DDL).repartition(2), settings)
    return sorted(parsed.collect(), key=lambda row: row.offset)


@pytest.fixture(scope="module")
def parsed(spark) -> dict[str, Row]:
    """Return all records of this module, good and bad, parsed together in one job."""
    cases = {f"bad {name}": value for name, (value, _) in BAD.items()}
    cases |= {f"read {name}": value for name, (value, _) in READ.items()}
    return dict(zip(cases, parse(spark, list(cases.values()), Settings()), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_told_by_its_reason(parsed, name):
    _, reason = BAD[name]
    found = parsed[f"bad {name}"].reason
    assert found is not None, "taken for a reading"
    assert re.search(reason, found)
    assert len(found) < 400


@pytest.mark.parametrize("name", READ)
def test_a_good_record_is_read_and_has_no_reason(parsed, name):
    _, (sensor_id, temperature, vibration, label, event_time) = READ[name]
    row = parsed[f"read {name}"]
    assert row.reason is None
    assert (row.sensor_id, row.temperature, row.vibration) == (sensor_id, temperature, vibration)
    assert (row.label, row.event_time) == (label, event_time)


def test_what_is_taken_apart_as_text_reads_the_same_as_json(spark):
    """A space in front takes a record from the quick way to `from_json`: an oracle for what both must read."""
    numbers = ["0", "-0", "0.1", "60", "72.48", "84.999999999999999", "99.5", "-99.123456789012345", "123456.5", "1e1"]
    vibrations = ["0", "0.02", "0.1", "0.071", "0.30000000000000004", "999999999999.5", "1E-2"]
    times = [None, "0", "1795350166036", "999999999999999999", "-1", "1.5"]
    names = ['"node-1"', '"a b"', '"[x]"', '"!~^"', '"{\\"}"', '"é"', '"\\u0041"', '""', '"\x1f"', '"\x7f"']
    values = [
        reading(sensor_id=name, temperature=number, vibration=vibration, label=label, event_time=time)
        for name in names
        for number, vibration in itertools.zip_longest(numbers, vibrations, fillvalue="0.5")
        for label, time in itertools.zip_longest(["0", "1", "2", "01"], times, fillvalue="0")
    ]
    values += [value.replace(b":", b": ").replace(b",", b", ") for value in values]
    rows = parse(spark, [*values, *(b" " + value for value in values)], Settings())
    fields = [tuple(getattr(row, name) for name in (*READING_FIELDS, "reason")) for row in rows]
    assert fields[: len(values)] == fields[len(values) :]
    assert 0 < sum(reason is None for *_, reason in fields) < len(fields)
    # The fog nodes read the same in bulk. They take 4 of the names, 5 of the pairs of numbers (no exponent, at most
    # 15 digits behind the point, within the limits) and 2 of the pairs of label and time, in both ways of writing.
    is_plain, readings = take_apart(pa.array(values, pa.binary()), Settings())
    taken = list(itertools.compress(fields, is_plain.to_pylist()))
    assert [(*row.values(), None) for row in readings.to_pylist()] == [(*row[:3], row[-1]) for row in taken]
    assert len(taken) == 4 * 5 * 2 * 2


def test_the_record_itself_stays_beside_what_was_read(parsed):
    row = parsed["bad trailing garbage"]
    assert (bytes(row.value), row.topic, row.partition) == (GOOD + b" garbage", "t", 0)
    assert parsed["bad null"].value is None


def test_the_limits_are_settings(spark):
    settings = Settings(
        temperature_min_celsius=-10.0, temperature_max_celsius=50.5, vibration_max_g=0.5, max_value_bytes=100
    )
    records = {
        reading(temperature="-10"): None,
        reading(temperature="50.5"): None,
        reading(temperature="-10.01"): "temperature is -10.01 °C; expected -10 to 50.5",
        reading(temperature="72.5"): "temperature is 72.5 °C; expected -10 to 50.5",
        reading(temperature="0", vibration="0.5"): None,
        reading(temperature="0", vibration="0.51"): "vibration is 0.51 g; expected 0 to 0.5",
        padded(100).replace(b"72.5", b"42.5"): None,
        padded(101).replace(b"72.5", b"42.5"): "value of 101 bytes; expected at most MAX_VALUE_BYTES=100",
    }
    assert [row.reason for row in parse(spark, list(records), settings)] == list(records.values())


def test_parsing_adds_its_columns_and_keeps_those_there_were(spark):
    records: DataFrame = spark.createDataFrame([], RECORD_DDL)
    assert parse_readings(records, Settings()).dtypes == [
        ("value", "binary"),
        ("topic", "string"),
        ("partition", "int"),
        ("offset", "bigint"),
        ("sensor_id", "string"),
        ("temperature", "double"),
        ("vibration", "double"),
        ("label", "int"),
        ("event_time", "bigint"),
        ("reason", "string"),
    ]
