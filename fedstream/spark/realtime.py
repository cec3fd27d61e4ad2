"""Spark's real-time mode, from topics to topics: each record goes through within milliseconds, in no micro-batch.

Columns only (no Python function), update mode, one slot held for each partition that is read. Spark commits offsets at
the end of an interval only, so that a crash repeats up to an interval's records: at least once.
"""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka
from fedstream.broker.position import Position
from fedstream.settings import Settings
from fedstream.spark import session

MODES = ("real-time", "micro-batch")


def now_ms() -> Column:
    """Return the executor's time, in ms since 1970, of each row.

    Spark's current_timestamp() is that of a whole interval.
    """
    return F.java_method(F.lit("java.lang.System"), F.lit("currentTimeMillis")).cast("BIGINT")


def count_slots(spark: SparkSession) -> int:
    """Return how many tasks of this application can run at once, when all its executors are there."""
    return int(spark.sparkContext.getConf().get("spark.cores.max") or spark.sparkContext.defaultParallelism)


def usable_mode(wanted: str, slots: int, partitions: int) -> str:
    """Return the mode to run in: the wanted one, or micro-batch where real-time mode would wait for slots for ever."""
    if wanted != "real-time" or slots >= partitions:
        return wanted
    print(
        f"Pas de mode temps réel : {partitions} partitions pour {slots} slot(s), il en faut un pour chacune "
        "(spark.cores.max) ; micro-lots à la place",
        flush=True,
    )
    return "micro-batch"


def pause_seconds(settings: Settings, mode: str) -> float:
    """Return how long a query in this mode goes on without a micro-batch that ends."""
    return settings.realtime_interval_seconds if mode == "real-time" else 0.0


def read_topics(
    spark: SparkSession, settings: Settings, topics: str, mode: str, start: Position | None = None
) -> DataFrame:
    """Return the stream of topics' records as `session.read_topic` does; real-time mode takes no bound on a batch."""
    if mode == "real-time":
        return session.read_topic(spark, settings, topics, None, start, **kafka.real_time_options(settings))
    return session.read_topic(spark, settings, topics, settings.max_offsets_per_trigger, start)


def build_query(messages: DataFrame, name: str, folder: Path, settings: Settings, mode: str) -> DataStreamWriter:
    """Return the unstarted query: messages (topic, key, value, perhaps partition) to the topic that each names."""
    writer = (
        messages.writeStream.queryName(name)
        .format("kafka")
        .outputMode("update")
        .options(**kafka.sink_options(settings))
        .option("checkpointLocation", str(folder))
    )
    if mode == "real-time":
        # pyspark's type hints do not know this trigger yet
        return writer.trigger(realTime=f"{settings.realtime_interval_seconds:g} seconds")  # type: ignore
    return writer.trigger(processingTime=f"{settings.trigger_interval_ms} milliseconds")
