"""The envelope of a rejected record on the topic dead-letter."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest

from fedstream.settings import Settings
from fedstream.spark.expressions import dead_letters, parse_readings

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"
REJECTED_DDL = f"reason STRING, {RECORD_DDL}"
VALUES = [
    b"hello",
    b'{"sensor_id":"n\xf8de","temperature":1}',  # not UTF-8
    bytes(range(256)) * 40,  # every byte, and longer than any line of base64
    b"",
    None,
    b"x" * 900_000,
]


@pytest.fixture(scope="module")
def letters(spark) -> list[dict]:
    """Return the letters for VALUES, whose offsets are 7, 8, ...; each is one string in one column, value."""
    records = [
        (value if value is None else bytearray(value), "sensor-data-node-1", 3, 7 + index)
        for index, value in enumerate(VALUES)
    ]
    parsed = parse_readings(spark.createDataFrame(records, RECORD_DDL), Settings())
    frame = dead_letters(parsed.where("reason IS NOT NULL"))
    assert frame.dtypes == [("value", "string")]
    found = [json.loads(row.value) for row in frame.collect()]
    return sorted(found, key=lambda letter: letter["offset"])


def test_a_letter_holds_the_original_bytes(letters):
    found = [letter["value"] and base64.b64decode(letter["value"]) for letter in letters]
    assert found == [value or letter["value"] for value, letter in zip(VALUES, letters, strict=True)]
    assert [letter["value"] for letter in letters if not letter["value"]] == ["", None], "empty is not null"


def test_a_letters_base64_is_one_line_as_strict_readers_want_it(letters):
    assert all(re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", letter["value"] or "") for letter in letters)


def test_a_letter_says_where_the_record_was(letters):
    places = [(letter["topic"], letter["partition"], letter["offset"]) for letter in letters]
    assert places == [("sensor-data-node-1", 3, offset) for offset in range(7, 7 + len(VALUES))]


def test_a_letter_gives_the_reason(letters):
    beginnings = ["not JSON", "invalid UTF-8", "invalid UTF-8", "empty value", "empty value", "value of 900000 bytes"]
    for letter, beginning in zip(letters, beginnings, strict=True):
        assert letter["reason"].startswith(beginning)


def test_a_letter_has_the_fields_of_the_contract_and_no_other_even_for_null(letters):
    for letter in letters:
        assert set(letter) == {"value", "reason", "topic", "partition", "offset", "time"}


def test_a_letter_has_the_time_in_milliseconds_since_1970(spark):
    rejected = spark.createDataFrame([("because", bytearray(b"x"), "t", 0, 0)], REJECTED_DDL)
    before = time.time()
    (letter,) = dead_letters(rejected).collect()
    found = json.loads(letter.value)["time"]
    assert isinstance(found, int)
    assert int(before * 1000) - 1 <= found <= time.time() * 1000


def test_a_reason_of_quotes_and_newlines_is_still_json(spark):
    reason = 'got "a\n\\b" — é'
    rejected = spark.createDataFrame([(reason, bytearray(b"x"), "t", 0, 0)], REJECTED_DDL)
    (letter,) = dead_letters(rejected).collect()
    assert json.loads(letter.value)["reason"] == reason
