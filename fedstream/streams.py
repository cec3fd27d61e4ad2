"""The Spark side that every job shares: session, Kafka source, parsing of readings, dead letters, running a query."""

from __future__ import annotations

import logging
import socket
import time

from pyspark import SparkConf, SparkContext
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream import kafka
from fedstream.messages import DEAD_LETTER, READING_DDL, READING_FIELDS
from fedstream.settings import Settings, StackError


class SparkUnavailableError(StackError):
    """No Spark master answered in time; the text names the master and the time."""


def start_session(app_name: str, settings: Settings) -> SparkSession:
    """Return the session of a job; master, cores and memory come from spark-submit and spark-defaults.conf.

    Raises:
        SparkUnavailableError: the master did not answer within `wait_timeout_seconds`.
    """
    SparkContext._ensure_initialized()  # connects to spark-submit's JVM, which knows the master it was given
    _wait_for_master(SparkConf().get("spark.master") or "local", settings.wait_timeout_seconds)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(levelname)s] %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    return SparkSession.builder.appName(app_name).getOrCreate()


def _wait_for_master(master: str, timeout_seconds: float) -> None:
    if not master.startswith("spark://"):
        return
    host, _, port = master.removeprefix("spark://").partition(":")
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                msg = (
                    f"no Spark master answered at {master} within {timeout_seconds:g} s ({error}); "
                    "is the stack up (`make ps`, `make doctor`)? Else set MASTER or --master."
                )
                raise SparkUnavailableError(msg) from error
            time.sleep(0.5)


def read_topic(spark: SparkSession, settings: Settings, topics: str, max_records: int, **options: str) -> DataFrame:
    """Return the stream of topics' records: (key, value, topic, partition, offset, timestamp, timestampType)."""
    source = kafka.source_options(settings, topics, max_records) | options
    return spark.readStream.format("kafka").options(**source).load()


def parse_readings(records: DataFrame, settings: Settings) -> DataFrame:
    """Add to Kafka records the columns of a reading and `reason`: null for a good reading, else why it is bad.

    One pass of `from_json` with a schema decides; what costs more is evaluated for bad records only.
    """
    text = F.col("value").cast("string")
    # Alone, text behind a JSON value would be ignored; inside another object it is a syntax error.
    wrapped = F.concat(F.lit('{"reading":'), text, F.lit("}"))
    parsed = F.from_json(
        F.when(F.length("value") <= settings.max_value_bytes, wrapped),
        f"reading STRUCT<{READING_DDL}>, malformed STRING",
        {"columnNameOfCorruptRecord": "malformed", "allowSingleQuotes": "false"},
    )
    # from_json reads any JSON value as a string; the quote after the name tells a string, where no object is nested.
    quoted = _is_flat(text) & text.rlike(r'"sensor_id"\s*:\s*"')
    type_name = F.schema_of_variant(F.try_variant_get(F.try_parse_json(text), "$.sensor_id", "variant"))
    sensor_id = F.when(quoted | (type_name == "STRING"), F.nullif("parsed.reading.sensor_id", F.lit("")))
    return (
        records.withColumn("parsed", parsed)
        .select("*", sensor_id.alias("sensor_id"), *(F.col(f"parsed.reading.{name}") for name in READING_FIELDS[1:]))
        .withColumn("reason", _reason(text, settings))
        .drop("parsed")
    )


def _is_flat(text: Column) -> Column:
    """Tell records as sensors send them, from brace to brace with none in between; others get slower checks."""
    return text.startswith("{") & (F.locate("}", text) == F.length(text))


def _reason(text: Column, settings: Settings) -> Column:
    """Return why a parsed record is no reading, or null (the first of the reasons that applies)."""
    size = F.length("value")
    low, high = settings.temperature_min_celsius, settings.temperature_max_celsius
    temperature, vibration, label = F.col("temperature"), F.col("vibration"), F.col("label")
    # A text with braces of its own could close the object it was wrapped in; it cannot be an array's one element, too.
    is_element = F.json_array_length(F.concat(F.lit("["), text, F.lit("]"))) == 1
    is_one_value = _is_flat(text) | F.coalesce(is_element, F.lit(False))
    is_good = (
        F.col("parsed.malformed").isNull()
        & F.col("sensor_id").isNotNull()
        & temperature.between(low, high)
        & vibration.between(0, settings.vibration_max_g)
        & label.isin(0, 1)
        & F.is_valid_utf8("value")
        & is_one_value
    )
    reason = (
        F.when(F.coalesce(is_good, F.lit(False)), F.lit(None).cast("string"))
        .when(F.coalesce(size, F.lit(0)) == 0, F.lit("empty value; expected a JSON object"))
        .when(
            size > settings.max_value_bytes,
            F.format_string(
                "value of %d bytes; expected at most MAX_VALUE_BYTES=%d", size, F.lit(settings.max_value_bytes)
            ),
        )
        .when(~F.is_valid_utf8("value"), F.lit("invalid UTF-8"))
        .when(F.col("parsed.reading").isNull() | ~text.rlike(r"^\s*\{"), F.lit("not JSON, or not one JSON object"))
    )
    for name, wanted in (
        ("sensor_id", "a non-empty string"),
        ("temperature", "a number (°C)"),
        ("vibration", "a number (g)"),
        ("label", "the whole number 0 or 1"),
    ):
        value = F.get_json_object(text, f"$.{name}")
        absent = F.col(name).isNull()
        shown = F.substring(value, 1, 100)
        got = F.format_string(f"{name} is of the wrong type: got %s, expected {wanted}", shown)
        reason = reason.when(absent & value.isNull(), F.lit(f"{name} is missing or null; expected {wanted}"))
        reason = reason.when(absent, got)
    return (
        reason.when(
            F.isnan(temperature)
            | F.isnan(vibration)
            | (F.abs(temperature) == float("inf"))
            | (vibration == float("inf")),
            F.format_string("temperature is %s, vibration is %s; expected finite numbers", temperature, vibration),
        )
        .when(
            ~temperature.between(low, high),
            F.format_string(f"temperature is %s °C; expected {low:g} to {high:g}", temperature),
        )
        .when(
            ~vibration.between(0, settings.vibration_max_g),
            F.format_string(f"vibration is %s g; expected 0 to {settings.vibration_max_g:g}", vibration),
        )
        .when(~label.isin(0, 1), F.format_string("label is %d; expected 0 or 1", label))
        .when(~is_one_value, F.lit("not JSON, or not one JSON object"))
        .otherwise(F.lit("event_time is of the wrong type; expected whole milliseconds since 1970"))
    )


def dead_letters(rejected: DataFrame) -> DataFrame:
    """Turn records (value, reason, topic, partition, offset) into the values of `dead-letter`: JSON, base64 inside."""
    letter = F.to_json(
        F.struct(
            F.translate(F.base64("value"), "\r\n", "").alias("value"),  # Spark breaks it into lines as mail does
            "reason",
            "topic",
            "partition",
            "offset",
            F.unix_millis(F.current_timestamp()).alias("time"),
        ),
        {"ignoreNullFields": "false"},
    )
    return rejected.select(letter.alias("value"))


def write_dead_letters(rejected: DataFrame, settings: Settings) -> None:
    """Send records (value, reason, topic, partition, offset) to `dead-letter`, from the executors.

    A driver that dies right after this repeats it; topic, partition and offset tell such twins.
    """
    dead_letters(rejected).write.format("kafka").options(**kafka.sink_options(settings, DEAD_LETTER)).save()


def run_query(*writers: DataStreamWriter, ready: str) -> None:
    """Start queries, say that they run, and block until one of them ends.

    Raises:
        pyspark.errors.StreamingQueryException: a query failed; its text holds the cause.
    """
    for writer in writers:
        writer.start()
    print(ready, flush=True)
    SparkSession.active().streams.awaitAnyTermination()
