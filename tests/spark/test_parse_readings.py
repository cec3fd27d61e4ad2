"""The column expressions of the jobs in real-time mode read the same as the type of the message."""

from __future__ import annotations

import re

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from fedstream.messages.readings import Reading
from fedstream.settings import Settings
from fedstream.spark.expressions import parse_readings
from tests.readings_cases import CASES, GOOD

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"


def parse(spark: SparkSession, values: list[bytes | None], settings: Settings) -> list[Row]:
    """Return the parsed records in their order."""
    records = [(bytearray(value) if value is not None else None, "t", 0, i) for i, value in enumerate(values)]
    parsed = parse_readings(spark.createDataFrame(records, RECORD_DDL).repartition(2), settings)
    return sorted(parsed.collect(), key=lambda row: row.offset)


@pytest.fixture(scope="module")
def parsed(spark) -> dict[str, Row]:
    """Return all cases, parsed together in one job for each of their settings."""
    found = {}
    for settings in {case.settings for case in CASES.values()}:
        names = [name for name, case in CASES.items() if case.settings == settings]
        found |= dict(zip(names, parse(spark, [CASES[name].value for name in names], settings), strict=True))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_record_is_read_as_by_the_fog_nodes_or_told_by_its_reason(parsed, name):
    case, row = CASES[name], parsed[name]
    if isinstance(case.expected, Reading):
        assert row.reason is None
        values = tuple(row[feature.name] for feature in case.settings.table)
        assert Reading(row.sensor_id, values, row.label, row.event_time) == case.expected
    else:
        assert row.reason is not None, "taken for a reading"
        assert re.search(case.expected, row.reason)
        assert len(row.reason) < 400


def test_the_record_itself_stays_beside_what_was_read(parsed):
    row = parsed["trailing garbage"]
    assert (bytes(row.value), row.topic, row.partition) == (GOOD + b" garbage", "t", 0)
    assert parsed["null"].value is None


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
