"""Fog node: learns one weight from one node's readings and publishes it each time it changes.

    sensor-data-node-N --> [parse, sum] --> running totals --> model-weights (key fog-N)

Examples:
    spark-submit fog/fog_node.py --node 1
    spark-submit fog/fog_node.py --node 2 --topic sensor-data --sensors node-2,s1
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream import kafka, messages, streams
from fedstream.messages import NodeUpdate
from fedstream.model import Totals
from fedstream.settings import Settings, command_help
from fedstream.state import BatchState


def own_readings(readings: DataFrame, node: int, sensors: Collection[str]) -> DataFrame:
    """Keep of a shared topic what concerns this node: its own sensors' records.

    Records that name no sensor concern node 1, so that each is kept in `dead-letter` once, not once a node.
    """
    is_own = F.col("sensor_id").isin(*sensors)
    return readings.where(F.coalesce(is_own, F.lit(node == 1)))


def summarise(readings: DataFrame) -> DataFrame:
    """Reduce a micro-batch to one row, (count, sum_temperature, sum_vibration, rejected): one Spark job."""
    is_good = F.col("reason").isNull()
    return readings.agg(
        F.count_if(is_good).alias("count"),
        F.coalesce(F.sum(F.when(is_good, F.col("temperature"))), F.lit(0.0)).alias("sum_temperature"),
        F.coalesce(F.sum(F.when(is_good, F.col("vibration"))), F.lit(0.0)).alias("sum_vibration"),
        F.count_if(~is_good).alias("rejected"),
    )


def learn(totals: dict[str, Any], summary: Row) -> dict[str, Any]:
    """Return the running totals after a micro-batch."""
    return asdict(Totals(**totals) + Totals(**summary.asDict()))


def node_update(node: int, totals: dict[str, Any]) -> NodeUpdate | None:
    """Return what the node has learned, or None while it has seen no good reading."""
    learned = Totals(**totals)
    if learned.count == 0:
        return None
    return NodeUpdate(f"fog-{node}", round(learned.weight(), 4), learned.count, learned.rejected)


def build_query(
    readings: DataFrame,
    node: int,
    folder: Path,
    publish: Callable[[str, dict[str, Any]], None],
    dead_letters: Callable[[DataFrame], None],
    trigger_interval_ms: int = 0,
) -> DataStreamWriter:
    """Return the unstarted query: parsed readings in, updates to `publish`, bad records to `dead_letters`.

    A micro-batch that Spark repeats after a crash is not counted again: `BatchState` gives back its first result.
    """
    state = BatchState(folder, initial=asdict(Totals()))

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        def compute(totals: dict[str, Any]) -> dict[str, Any]:
            summary = summarise(batch).first()
            assert summary is not None  # an aggregate without groups has exactly one row
            if summary.rejected:
                dead_letters(batch.where("reason IS NOT NULL"))
                print(f"Fog-{node} -> {summary.rejected} message(s) rejeté(s) vers dead-letter", flush=True)
            return learn(totals, summary)

        update = node_update(node, state.advance(batch_id, compute))
        if update:
            publish(update.node_id, update.as_dict())
            print(f"Fog-{node} -> poids envoyé : {update.as_dict()}", flush=True)

    return (
        readings.writeStream.queryName(f"fog-{node}")
        .foreachBatch(handle_batch)
        .option("checkpointLocation", str(folder / "spark"))
        .trigger(processingTime=f"{trigger_interval_ms} milliseconds")
    )


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", type=click.IntRange(1), required=True, help="Number N of the node.")
@click.option("--topic", help="Topic to read. [default: sensor-data-node-N]")
@click.option("--sensors", help="On a shared topic: the node's sensors, separated by commas. [default: node-N]")
def main(node: int, topic: str | None, sensors: str | None) -> None:
    """Run a fog node until it is stopped."""
    settings = Settings.from_env(os.environ)
    own_topic = messages.sensor_topic(node)
    topic = topic or own_topic
    kafka.ensure_topics(settings, [topic, messages.MODEL_WEIGHTS, messages.DEAD_LETTER])
    publish = kafka.connect_publisher(settings, messages.MODEL_WEIGHTS)
    spark = streams.start_session(f"FogNode{node}", settings)
    records = streams.read_topic(spark, settings, topic, settings.max_offsets_per_trigger)
    readings = streams.parse_readings(records, settings)
    if topic != own_topic:
        readings = own_readings(readings, node, (sensors or f"node-{node}").split(","))
    query = build_query(
        readings,
        node,
        settings.checkpoint_dir / f"fog-{node}" / topic,
        publish,
        lambda rejected: streams.write_dead_letters(rejected, settings),
        settings.trigger_interval_ms,
    )
    streams.run_query(query, ready=f"Fog-{node} prêt : {topic} -> {messages.MODEL_WEIGHTS}")


if __name__ == "__main__":
    main()
