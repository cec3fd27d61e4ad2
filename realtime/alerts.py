"""Alerts: scores each reading with the global model in service, within milliseconds of its arrival.

    sensor-data-node-* --> [parse, probability of trouble] --> alerts (key: where the reading stands)
                                ^-- global-model           --> dead-letter

A new global model takes over at the end of an interval (REALTIME_INTERVAL_SECONDS), when Spark plans the query anew:
nothing is stopped, lost or scored twice for it.

Examples:
    spark-submit realtime/alerts.py
    spark-submit realtime/alerts.py --topic sensor-data-node-1,sensor-data-node-2
    spark-submit realtime/alerts.py --mode micro-batch --from 2026-11-22T10:00:00Z
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import click
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka, models
from fedstream.broker.position import Position, start_option
from fedstream.learning.arrays import layout
from fedstream.messages.door import encode
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.topics import ALERTS, DEAD_LETTER, GLOBAL_MODEL, SENSOR_DATA
from fedstream.settings import Settings
from fedstream.spark import expressions, realtime, session, watchdog
from fedstream.spark.scope import folder_of
from fedstream.spark.scoring import Layout, scorable, scoring_ddl, scoring_message, with_probability
from fedstream.spark.state import Reset
from fedstream.terminal import Command

POLL_SECONDS = 0.5
SERVED = "fedstream.alerts.served"  # property of the driver's JVM


def serve(spark: SparkSession, model: GlobalModel) -> None:
    """Have readings scored by this version from the next plan on: at the end of an interval, or of a micro-batch."""
    assert spark._jvm is not None
    spark._jvm.java.lang.System.setProperty(SERVED, encode(scoring_message(model)).decode())


def served_model(spark: SparkSession, shapes: Layout) -> DataFrame:
    """Return the version in service as one row of one struct, as it is whenever Spark plans a query with it.

    On a table of constants the optimizer itself calls Java's method, in the driver and for each plan: there is no job
    and nothing to read, so that the next interval begins sooner.
    """
    one_row = spark.sql("VALUES (0)")
    served = F.java_method(F.lit("java.lang.System"), F.lit("getProperty"), F.lit(SERVED))
    return one_row.select(F.from_json(served, scoring_ddl(shapes)).alias("served"))


def score_readings(readings: DataFrame, served: DataFrame, shapes: Layout, settings: Settings) -> DataFrame:
    """Turn parsed readings into (topic, key, value): scores for `alerts`, the bad readings for `dead-letter`.

    The key says where the reading stands (topic/partition/offset), so that one scored twice is seen to be the same.
    """
    names = settings.feature_names
    scored = with_probability(readings.withColumn("served", served.scalar()), shapes, names)
    is_good = F.col("reason").isNull()
    place = F.concat_ws("/", "topic", "partition", "offset")
    message = F.to_json(
        F.struct(
            "sensor_id",
            "probability",
            (F.col("probability") >= settings.decision_threshold).alias("alert"),
            F.col("served.version").alias("model_version"),
            F.col("served.run_id").alias("run_id"),
            F.coalesce("event_time", F.unix_millis("timestamp")).alias("event_time"),
            realtime.now_ms().alias("scored_at"),
        )
    )
    return scored.select(
        F.when(is_good, F.lit(ALERTS)).otherwise(F.lit(DEAD_LETTER)).alias("topic"),
        F.when(is_good, place).alias("key"),
        F.when(is_good, message).otherwise(expressions.dead_letter(realtime.now_ms(), "alerts")).alias("value"),
    )


def wait_for_model(newest: Callable[[float], GlobalModel | None], timeout_seconds: float) -> GlobalModel:
    """Return the newest global model; wait for the first one, however long the cloud takes, and say so now and then."""
    said_at = time.monotonic()
    while (model := newest(POLL_SECONDS)) is None:
        if time.monotonic() - said_at > timeout_seconds:
            said_at = time.monotonic()
            print(f"Alertes -> en attente du premier modèle sur {GLOBAL_MODEL} (make run-cloud ?)", flush=True)
    return model


def build_query(records: DataFrame, settings: Settings, mode: str, folder: Path, shapes: Layout) -> DataStreamWriter:
    """Return the unstarted query, from the sensors' records to `alerts`, for models of one layout."""
    readings = expressions.parse_readings(records, settings)
    scores = score_readings(readings, served_model(records.sparkSession, shapes), shapes, settings)
    return realtime.build_query(scores, "alerts", folder, settings, mode)


def follow_models(
    spark: SparkSession,
    query: StreamingQuery,
    model: GlobalModel,
    newest: Callable[[float], GlobalModel | None],
) -> GlobalModel:
    """Serve each new version to the running query; return the first one that this query cannot take over.

    Raises:
        pyspark.errors.StreamingQueryException: the query failed.
    """
    first = layout(model.arrays)
    while not query.awaitTermination(POLL_SECONDS):  # type: ignore[arg-type]  # it takes parts of a second, too
        found = newest(0)
        if found and (found.run_id, found.version) != (model.run_id, model.version):
            model = found
            if layout(model.arrays) != first:
                print(f"Alertes -> la version {model.version} a une autre forme : nouvelle requête", flush=True)
                break
            serve(spark, model)
            print(f"Alertes -> version {model.version} : en service à la fin de l'intervalle", flush=True)
    return model


@click.command(cls=Command, help=__doc__)
@start_option
@click.option("--topic", "topics", default=f"{SENSOR_DATA}-node-.*", show_default=True, help="Topics, or a pattern.")
@click.option("--mode", type=click.Choice(realtime.MODES), default=realtime.MODES[0], show_default=True)
def main(topics: str, mode: str, start: Position | None) -> None:
    """Score readings until it is stopped."""
    settings = Settings.from_env(os.environ)
    wanted = [] if "*" in topics else topics.split(",")
    kafka.ensure_topics(settings, [*wanted, GLOBAL_MODEL, ALERTS, DEAD_LETTER])
    own = settings.checkpoint_dir / "alerts"
    folder, reset = own / folder_of(topics) / (f"from-{start}" if start else "start"), Reset.of(own)
    watchdog.guard_topics(settings, topics, folder)
    spark = session.start_session("Alerts", settings)
    mode = realtime.usable_mode(mode, realtime.count_slots(spark), kafka.count_partitions(settings, topics))
    newest = models.follow_models(settings, functools.partial(scorable, table=settings.table), "Alertes")
    model = wait_for_model(newest, settings.wait_timeout_seconds)
    while True:
        serve(spark, model)
        records = realtime.read_topics(spark, settings, topics, mode, start or reset.start)
        writer = build_query(records, settings, mode, folder, layout(model.arrays))
        (query,) = session.start_queries(settings, writer, pause_seconds=realtime.pause_seconds(settings, mode))
        print(f"Alertes prêtes ({mode}) : {topics} -> {ALERTS}, version {model.version}", flush=True)
        with session.failures_told(settings):
            model = follow_models(spark, query, model, newest)
        query.stop()


if __name__ == "__main__":
    main()
