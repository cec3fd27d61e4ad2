"""Readings as column expressions, for the jobs in real-time mode, where Spark takes no Python function.

They follow from the same table of features as the type of the message (`messages.readings`), and read the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fedstream.messages.readings import (
    ISO_TIME,
    MICROSECONDS_BELOW,
    MILLISECONDS_BELOW,
    NUMERIC_TIME,
    SECONDS_BELOW,
    ReadingFormat,
    reading_format,
)
from fedstream.settings import Settings


def parse_readings(records: DataFrame, settings: Settings) -> DataFrame:
    """Add to Kafka records the columns of a reading and `reason`: null for a good reading, else why it is bad.

    The columns are sensor_id, the features, label, and event_time (ms since 1970, or null).
    """
    form = reading_format(settings)
    names = ("sensor_id", *form.names, "label", "event_time")
    parsed = records.withColumn("parsed", F.expr(_parsed(form)))
    values = {name: f"parsed.reading.{_column(form.paths[name])}" for name in names}
    values["event_time"] = _time_ms(values["event_time"])
    return (
        parsed.select("*", *(F.expr(values[name]).alias(name) for name in names))
        .withColumn("reason", F.expr(_reason(form, settings)))
        .drop("parsed")
    )


TEXT = "CAST(value AS STRING)"
# Sensors send one object with none inside; others get slower checks.
IS_FLAT = f"(startswith({TEXT}, '{{') AND locate('}}', {TEXT}) = length({TEXT}))"
# A text with braces of its own could close the object it is wrapped in; it cannot be an array's one element, too.
IS_ONE_OBJECT = f"({IS_FLAT} OR coalesce(json_array_length(concat('[', {TEXT}, ']')) = 1, false))"


def _column(path: str) -> str:
    return ".".join(f"`{name}`" for name in path.split("."))


def _text(value: str) -> str:
    """Return a text as a constant of SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _parsed(form: ReadingFormat) -> str:
    """Return what reads a value: a struct of `reading` and `malformed`.

    Alone, text behind a JSON value would be ignored; inside another object it is a syntax error.
    """
    kinds = {"sensor_id": "STRING", **dict.fromkeys(form.names, "DOUBLE"), "label": "INT", "event_time": "STRING"}
    top, groups = [], {}  # type: ignore[var-annotated]
    for name, kind in kinds.items():
        group, dot, inner = form.paths[name].partition(".")
        if dot:
            groups.setdefault(group, []).append(f"`{inner}`: {kind}")
        else:
            top.append(f"`{group}`: {kind}")
    top += [f"`{group}`: STRUCT<{', '.join(fields)}>" for group, fields in groups.items()]
    schema = _text(f"reading STRUCT<{', '.join(top)}>, malformed STRING")
    options = (
        "'columnNameOfCorruptRecord', 'malformed', 'allowSingleQuotes', 'false', 'allowNonNumericNumbers', 'false'"
    )
    wrapped = f"""concat('{{"reading":', {TEXT}, '}}')"""
    return f"from_json(CASE WHEN length(value) <= {form.max_value_bytes} THEN {wrapped} END, {schema}, map({options}))"


def _time_ms(text: str) -> str:
    number = f"CASE WHEN {text} RLIKE {_text(f'^({NUMERIC_TIME})$')} THEN try_cast({text} AS DOUBLE) END"
    iso = f"unix_millis(try_cast({text} AS TIMESTAMP))"
    return f"""CASE
        WHEN {text} RLIKE {_text(f"^({ISO_TIME})$")} THEN CASE WHEN {iso} >= 0 THEN {iso} END
        WHEN {number} < {SECONDS_BELOW} THEN CAST(rint({number} * 1000) AS BIGINT)
        WHEN {number} < {MILLISECONDS_BELOW} THEN CAST(rint({number}) AS BIGINT)
        WHEN {number} < {MICROSECONDS_BELOW} THEN CAST(rint({number} * 0.001D) AS BIGINT)
    END"""


def _is_name(path: str) -> str:
    """Return what tells that the sensor is a text or a whole number; from_json reads any JSON value as a text."""
    key = '"\\Q' + path.rpartition(".")[2] + '\\E"[ ]?:[ ]?'
    is_good, is_odd = _text(key + '("|-?[0-9]+[ ]?[,}])'), _text(key + '[^ "0-9-]')
    quick = f"({IS_FLAT} AND {TEXT} RLIKE {is_good} AND NOT {TEXT} RLIKE {is_odd})"
    kind = f"schema_of_variant(try_variant_get(try_parse_json({TEXT}), {_text(_json_path(path))}, 'variant'))"
    return f"(sensor_id <> '' AND ({quick} OR coalesce({kind} IN ('STRING', 'BIGINT'), false)))"


def _json_path(path: str) -> str:
    return "$" + "".join(f"['{name}']" for name in path.split("."))


def _reason(form: ReadingFormat, settings: Settings) -> str:
    """Return the first reason why a parsed record is no reading, or null."""
    label = f"label BETWEEN 0 AND {settings.classes - 1}"
    if settings.labels == "optional":
        label = f"({label} OR {_got(form.paths['label'])} IS NULL)"
    time = form.paths["event_time"]
    checks = {"sensor_id": _is_name(form.paths["sensor_id"])}
    checks |= {each.name: f"`{each.name}` BETWEEN {each.low!r}D AND {each.high!r}D" for each in form.features}
    checks |= {"label": label}
    is_timed = f"(event_time IS NOT NULL OR parsed.reading.{_column(time)} IS NULL)"
    is_good = " AND ".join(
        [*checks.values(), is_timed, "parsed.malformed IS NULL", "is_valid_utf8(value)", IS_ONE_OBJECT]
    )
    not_json = _text("not JSON, or not one JSON object")
    size = form.max_value_bytes
    too_long = f"concat('value of ', length(value), ' bytes; expected at most MAX_VALUE_BYTES={size}')"
    cases = [
        (f"coalesce({is_good}, false)", "NULL"),
        ("coalesce(length(value), 0) = 0", _text("empty value; expected a JSON object")),
        (f"length(value) > {size}", too_long),
        ("NOT is_valid_utf8(value)", _text("invalid UTF-8; expected JSON in UTF-8")),
        (f"parsed.reading IS NULL OR NOT {TEXT} RLIKE '^[ \\\\t\\\\r\\\\n]*[{{]'", not_json),
    ]
    for name, check in checks.items():
        path = form.paths[name]
        got = f"coalesce(concat(' is ', substr({_got(path)}, 1, 100)), ' is missing or null')"
        wrong = f"concat({_text(path)}, {got}, {_text('; expected ' + form.expected[path])})"
        cases.append((f"NOT coalesce({check}, false)", wrong))
    cases.append((f"NOT {IS_ONE_OBJECT}", not_json))
    wrong_time = (
        f"concat({_text(time)}, ' is ', substr({_got(time)}, 1, 100), {_text('; expected ' + form.expected[time])})"
    )
    return f"CASE {_whens(cases)} ELSE coalesce({wrong_time}, {not_json}) END"


def _got(path: str) -> str:
    return f"get_json_object({TEXT}, {_text(_json_path(path))})"


def _whens(cases: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"WHEN {condition} THEN {value}" for condition, value in cases)


def dead_letter(time_ms: Column, by: str) -> Column:
    """Return a record (value, reason, topic, partition, offset) as the JSON of a job's `DeadLetter`."""
    return F.to_json(
        F.struct(
            F.translate(F.base64("value"), "\r\n", "").alias("value"),  # Spark breaks it into lines as mail does
            "reason",
            "topic",
            "partition",
            "offset",
            time_ms.alias("time"),
            F.lit(by).alias("by"),
        ),
        {"ignoreNullFields": "false"},
    )
