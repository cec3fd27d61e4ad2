"""A rejected record of a job in real-time mode: the JSON of `DeadLetter`, written by column expressions."""

from __future__ import annotations

import base64
import re

import pytest
from pyspark.sql import functions as F

from fedstream.messages.dead_letters import DeadLetter, dead_letter
from fedstream.messages.door import decode, encode
from fedstream.settings import Settings
from fedstream.spark import expressions

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"
TIME_MS = 1_700_000_000_123
VALUES = [
    b"hello",
    b'{"sensor_id":"n\xf8de","temperature":1}',  # not UTF-8
    bytes(range(256)) * 40,  # every byte, and longer than any line of base64
    b"",
    None,
    b"x" * 900_000,
]


@pytest.fixture(scope="module")
def letters(spark) -> list[bytes]:
    """Return the values of the letters for VALUES, whose offsets are 7, 8, ..."""
    records = [
        (value if value is None else bytearray(value), "sensor-data-node-1", 3, 7 + index)
        for index, value in enumerate(VALUES)
    ]
    parsed = expressions.parse_readings(spark.createDataFrame(records, RECORD_DDL), Settings())
    rows = parsed.select("offset", expressions.dead_letter(F.lit(TIME_MS), "alerts").alias("letter")).collect()
    return [row.letter.encode() for row in sorted(rows, key=lambda row: row.offset)]


def test_a_letter_is_the_one_that_the_executors_of_a_fog_node_send(letters):
    beginnings = ["not JSON", "invalid UTF-8", "invalid UTF-8", "empty value", "empty value", "value of 900000 bytes"]
    for offset, (value, letter, beginning) in enumerate(zip(VALUES, letters, beginnings, strict=True), start=7):
        found = decode(DeadLetter, letter)
        assert found.reason.startswith(beginning)
        expected = dead_letter(value, found.reason, ("sensor-data-node-1", 3, offset), TIME_MS, "alerts")
        assert found == expected
        assert letter == encode(expected), "with null for no value, and no other field"


def test_a_letters_base64_is_one_line_as_strict_readers_want_it(letters):
    for value, letter in zip(VALUES, letters, strict=True):
        text = decode(DeadLetter, letter).value
        assert text is None or re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text)
        assert (text and base64.b64decode(text, validate=True)) == (value or text), "empty is not null"


def test_a_reason_of_quotes_and_newlines_is_still_json(spark):
    reason = 'got "a\n\\b" — é'
    rejected = spark.createDataFrame([(reason, bytearray(b"x"), "t", 0, 0)], f"reason STRING, {RECORD_DDL}")
    (row,) = rejected.select(expressions.dead_letter(F.lit(TIME_MS), "alerts").alias("letter")).collect()
    assert decode(DeadLetter, row.letter.encode()).reason == reason
