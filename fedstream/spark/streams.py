"""The Spark side that every job shares: session, Kafka source, parsing of readings, dead letters, running a query."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable

from pyspark import SparkConf, SparkContext
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka
from fedstream.broker.position import Position, start_options
from fedstream.errors import StackError
from fedstream.messages.readings import PLAIN_READING, READING_DDL, READING_FIELDS
from fedstream.messages.topics import DEAD_LETTER
from fedstream.settings import Settings
from fedstream.spark import watchdog


class SparkUnavailableError(StackError):
    """No Spark master answered in time; the text names the master and the time."""


def start_session(app_name: str, settings: Settings) -> SparkSession:
    """Return the session of a job; master, cores and memory come from spark-submit and spark-defaults.conf.

    A driver that has no executor for too long ends.

    Raises:
        SparkUnavailableError: the master did not answer within `wait_timeout_seconds`.
    """
    SparkContext._ensure_initialized()  # connects to spark-submit's JVM, which knows the master it was given
    _wait_for_master(SparkConf().get("spark.master") or "local", settings.wait_timeout_seconds)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(levelname)s] %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns of each 0.1 s without a CPU
    spark = SparkSession.builder.appName(app_name).getOrCreate()
    if str(spark.sparkContext.master).startswith("spark://"):
        watchdog.watch_in_background(watchdog.ExecutorCheck(lambda: watchdog.count_executors(spark)))
    return spark


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


def read_topic(
    spark: SparkSession,
    settings: Settings,
    topics: str,
    max_records: int | None,
    start: Position | None = None,
    **options: str,
) -> DataFrame:
    """Return the stream of topics' records: (key, value, topic, partition, offset, timestamp, timestampType).

    Without a checkpoint it starts from the position, or from the first record.
    """
    source = kafka.source_options(settings, topics, max_records) | start_options(settings, topics, start) | options
    return spark.readStream.format("kafka").options(**source).load()


def read_again(spark: SparkSession, settings: Settings, ranges: Iterable[Row]) -> DataFrame:
    """Return records that a stream has read before, as it does; each range is (topic, partition, first, last)."""
    return spark.read.format("kafka").options(**kafka.range_options(settings, ranges)).load()


def parse_readings(records: DataFrame, settings: Settings) -> DataFrame:
    """Add to Kafka records the columns of a reading and `reason`: null for a good reading, else why it is bad.

    A record in the form in which sensors send is taken apart as text, which costs less; any other and any bad
    one is parsed by `from_json`. Both read the same from the same record.
    """
    text = F.col("value").cast("string")
    plain = records.withColumn("plain", (F.length("value") <= settings.max_value_bytes) & text.rlike(PLAIN_READING))
    parsed = plain.withColumn("parsed", F.when(~F.col("plain"), _from_json(text, settings)))
    pieces = parsed.withColumn("pieces", F.when(F.col("plain"), F.split(text, '"')))
    # from_json reads any JSON value as a string; the quote after the name tells a string, where no object is nested.
    quoted = _is_flat(text) & text.rlike(r'"sensor_id"\s*:\s*"')
    type_name = F.schema_of_variant(F.try_variant_get(F.try_parse_json(text), "$.sensor_id", "variant"))
    values = {name: F.col(f"parsed.reading.{name}") for name in READING_FIELDS}
    values["sensor_id"] = F.when(quoted | (type_name == "STRING"), F.nullif(values["sensor_id"], F.lit("")))
    return (
        pieces.select(
            "*",
            *(F.when(F.col("plain"), piece).otherwise(values[name]).alias(name) for name, piece in _pieces().items()),
        )
        .withColumn("reason", _reason(text, settings))
        .drop("plain", "pieces", "parsed")
    )


def _pieces() -> dict[str, Column]:
    """Return the fields of a plain record, from its text split at the quotes."""
    piece = [F.get("pieces", F.lit(i)) for i in range(13)]

    def before_comma(piece: Column, kind: str) -> Column:  # `: 72.48, ` -> 72.48
        return F.substr(F.substring_index(piece, ",", 1), F.lit(2)).try_cast(kind)

    return {
        "sensor_id": piece[3],
        "temperature": before_comma(piece[6], "double"),
        "vibration": before_comma(piece[8], "double"),
        "label": piece[10].contains("1").cast("int"),  # `:0}` or `:1,`
        "event_time": F.substr(piece[12], F.lit(2), F.length(piece[12]) - 2).try_cast("bigint"),
    }


def _from_json(text: Column, settings: Settings) -> Column:
    # Alone, text behind a JSON value would be ignored; inside another object it is a syntax error.
    wrapped = F.concat(F.lit('{"reading":'), text, F.lit("}"))
    return F.from_json(
        F.when(F.length("value") <= settings.max_value_bytes, wrapped),
        f"reading STRUCT<{READING_DDL}>, malformed STRING",
        {"columnNameOfCorruptRecord": "malformed", "allowSingleQuotes": "false"},
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
    is_one_value = F.col("plain") | _is_flat(text) | F.coalesce(is_element, F.lit(False))
    is_good = (
        F.col("parsed.malformed").isNull()
        & F.col("sensor_id").isNotNull()
        & temperature.between(low, high)
        & vibration.between(0, settings.vibration_max_g)
        & label.isin(0, 1)
        & (F.col("plain") | F.is_valid_utf8("value"))
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
        .when(
            ~F.col("plain") & (F.col("parsed.reading").isNull() | ~text.rlike(r"^\s*\{")),
            F.lit("not JSON, or not one JSON object"),
        )
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


def dead_letter(time_ms: Column) -> Column:
    """Return the value of `dead-letter` for a record (value, reason, topic, partition, offset): JSON, base64 inside."""
    return F.to_json(
        F.struct(
            F.translate(F.base64("value"), "\r\n", "").alias("value"),  # Spark breaks it into lines as mail does
            "reason",
            "topic",
            "partition",
            "offset",
            time_ms.alias("time"),
        ),
        {"ignoreNullFields": "false"},
    )


def dead_letters(rejected: DataFrame) -> DataFrame:
    """Turn the rejected records of a micro-batch into the values of `dead-letter`."""
    return rejected.select(dead_letter(F.unix_millis(F.current_timestamp())).alias("value"))


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
