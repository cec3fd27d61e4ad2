"""Squares over Kafka: reads numbers from a topic and writes each with its square to another, within milliseconds.

    numbers --> [n, n²] --> squares
                        --> dead-letter (no whole number, or a square beyond 64 bits)

Examples:
    spark-submit realtime/squares.py
    spark-submit realtime/squares.py --mode micro-batch
    spark-submit realtime/squares.py --input numbers-replay --output squares-again --from 2026-11-22T10:00:00Z
"""

from __future__ import annotations

import os

import click
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fedstream.broker import kafka
from fedstream.broker.position import Position, start_option
from fedstream.messages.topics import DEAD_LETTER, NUMBERS, SQUARES
from fedstream.settings import Settings
from fedstream.spark import expressions, realtime, session, watchdog
from fedstream.spark.state import Reset
from fedstream.terminal import Command


def number_of(text: Column) -> Column:
    """Return n of the text `{"n":59}` as BIGINT, or null if it is no such object.

    The form that every producer here writes is taken apart directly, at a fraction of the cost; another one is parsed.
    """
    digits = F.substr(text, F.lit(6), F.octet_length(text) - 6)  # a text of this form has no character of more bytes
    quick = digits.try_cast("BIGINT")
    # Only what reads back as the same text: a cast would also take +5 or 007, which are not JSON.
    is_plain = text.startswith('{"n":') & text.endswith("}") & (quick.cast("STRING") == digits)
    parsed = F.from_json(text, "n BIGINT, malformed STRING", {"columnNameOfCorruptRecord": "malformed"})
    # Text behind a JSON value is ignored; in an array it makes another element, or a syntax error.
    is_object = text.rlike(r"^\s*\{") & (F.json_array_length(F.concat(F.lit("["), text, F.lit("]"))) == 1)
    return F.when(is_plain, quick).when(is_object & parsed.malformed.isNull(), parsed.n)


def square_numbers(records: DataFrame, output: str, partitions: int, max_value_bytes: int) -> DataFrame:
    """Turn Kafka records into (topic, key, partition, value): squares for `output`, bad ones for `dead-letter`.

    A square goes to its number's partition, modulo the `partitions` that the output has: squares keep their numbers'
    order, and no task waits for another one that fills the same partition.
    """
    text = F.when(F.length("value") <= max_value_bytes, F.col("value").cast("STRING"))
    numbers = records.withColumn("n", number_of(text))
    square = F.try_multiply("n", "n")  # no column: Spark would make one more row of each record
    reason = (
        F.when(F.length("value") > max_value_bytes, f"longer than MAX_VALUE_BYTES={max_value_bytes}")
        .when(F.col("n").isNull(), 'expected {"n":59} with a whole number of 64 bits')
        .otherwise("the square does not fit 64 bits; expected n from -3037000499 to 3037000499")
    )
    is_good = square.isNotNull()
    pair = F.concat(F.lit('{"n":'), F.col("n").cast("STRING"), F.lit(',"square":'), square.cast("STRING"), F.lit("}"))
    return numbers.withColumn("reason", reason).select(
        F.when(is_good, F.lit(output)).otherwise(F.lit(DEAD_LETTER)).alias("topic"),
        F.when(is_good, F.col("key")).alias("key"),
        F.when(is_good, F.col("partition") % partitions).alias("partition"),
        F.when(is_good, pair).otherwise(expressions.dead_letter(realtime.now_ms(), "squares-kafka")).alias("value"),
    )


@click.command(cls=Command, help=__doc__)
@start_option
@click.option("--input", "source", default=NUMBERS, show_default=True, help="Topic of the numbers.")
@click.option("--output", default=SQUARES, show_default=True, help="Topic of the squares.")
@click.option("--mode", type=click.Choice(realtime.MODES), default=realtime.MODES[0], show_default=True)
def main(source: str, output: str, mode: str, start: Position | None) -> None:
    """Square numbers until it is stopped."""
    settings = Settings.from_env(os.environ)
    kafka.ensure_topics(settings, [source, output, DEAD_LETTER])
    own = settings.checkpoint_dir / "squares-kafka"
    folder, reset = own / source / (f"from-{start}" if start else "start"), Reset.of(own)
    watchdog.guard_topics(settings, source, folder)
    spark = session.start_session("SquaresOverKafka", settings)
    mode = realtime.usable_mode(mode, realtime.count_slots(spark), kafka.count_partitions(settings, source))
    records = realtime.read_topics(spark, settings, source, mode, start or reset.start)
    squares = square_numbers(records, output, kafka.count_partitions(settings, output), settings.max_value_bytes)
    query = realtime.build_query(squares, "squares-kafka", folder, settings, mode)
    ready = f"Carrés prêts ({mode}) : {source} -> {output}"
    session.run_query(settings, query, ready=ready, pause_seconds=realtime.pause_seconds(settings, mode))


if __name__ == "__main__":
    main()
