"""Cloud aggregator: merges the nodes' latest weights into the global model.

    model-weights --> [latest of each node] --> mean weighted by samples --> global-model

Example:
    spark-submit cloud/aggregator.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream import kafka, messages, streams
from fedstream.messages import BadMessage, GlobalModel, NodeUpdate
from fedstream.model import global_weight, merge_updates
from fedstream.settings import Settings, command_help
from fedstream.state import BatchState

Rejected = tuple[Row, str]  # a record of the topic and the reason


def bounded_records(records: DataFrame, max_value_bytes: int) -> DataFrame:
    """Keep what the handler needs of a record; an over-long value stays behind, its size comes along."""
    size = F.length("value")
    value = F.when(size <= max_value_bytes, F.col("value")).alias("value")
    return records.select(value, size.alias("size"), "topic", "partition", "offset")


def read_updates(records: Iterable[Row], max_value_bytes: int) -> tuple[list[NodeUpdate], list[Rejected]]:
    """Split a micro-batch into updates and rejected records, in the topic's order."""
    updates, rejected = [], []
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        try:
            if (record.size or 0) > max_value_bytes:
                msg = f"value of {record.size} bytes; expected at most MAX_VALUE_BYTES={max_value_bytes}"
                raise BadMessage(msg)
            updates.append(NodeUpdate.from_json(record.value))
        except BadMessage as error:
            rejected.append((record, str(error)))
    return updates, rejected


def close_batch(latest: dict[str, Any], updates: list[NodeUpdate]) -> tuple[dict[str, Any], int]:
    """Return the latest update of each node after a micro-batch, and how many updates were replayed or late."""
    known = {node_id: NodeUpdate(**update) for node_id, update in latest.items()}
    merged, stale = merge_updates(known, updates)
    return {node_id: asdict(update) for node_id, update in sorted(merged.items())}, stale


def global_model(latest: dict[str, Any]) -> GlobalModel | None:
    """Return the global model of the nodes' latest updates, or None while there is none."""
    updates = [NodeUpdate(**update) for update in latest.values()]
    if not updates:
        return None
    return GlobalModel(global_weight(updates), sum(update.samples for update in updates), len(updates))


def build_query(
    records: DataFrame,
    folder: Path,
    max_value_bytes: int,
    publish: Callable[[str, dict[str, Any]], None],
    dead_letters: Callable[[DataFrame], None],
    trigger_interval_ms: int = 0,
) -> DataStreamWriter:
    """Return the unstarted query: records of `model-weights` in, global models to `publish`.

    A micro-batch that Spark repeats after a crash is not merged again, but its global model is published again:
    the crash may have come before the first time.
    """
    state = BatchState(folder, initial={})

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        before = state.value if batch_id != state.batch_id else None

        def compute(latest: dict[str, Any]) -> dict[str, Any]:
            updates, rejected = read_updates(bounded_records(batch, max_value_bytes).collect(), max_value_bytes)
            if rejected:
                dead_letters(_with_reasons(batch, rejected))
            merged, stale = close_batch(latest, updates)
            for count, what in (
                (len(rejected), "rejeté(s) vers dead-letter"),
                (stale, "rejoué(s) ou en retard, ignoré(s)"),
            ):
                if count:
                    print(f"Cloud -> {count} message(s) {what}", flush=True)
            return merged

        latest = state.advance(batch_id, compute)
        model = global_model(latest)
        if model and latest != before:
            publish(messages.GLOBAL_MODEL_KEY, model.as_dict())
        print(console_table(batch_id, model), flush=True)

    return (
        records.writeStream.queryName("cloud")
        .foreachBatch(handle_batch)
        .option("checkpointLocation", str(folder / "spark"))
        .trigger(processingTime=f"{trigger_interval_ms} milliseconds")
    )


def console_table(batch_id: int, model: GlobalModel | None) -> str:
    """Return the table that Spark's console sink prints for a micro-batch, as in the report."""
    cell = repr(model.global_weight) if model else "NULL"
    width = max(len(cell), len("global_weight"))
    rule = "+" + "-" * width + "+"
    heading = (
        f"-------------------------------------------\nBatch: {batch_id}\n-------------------------------------------"
    )
    return f"{heading}\n{rule}\n|{'global_weight':<{width}}|\n{rule}\n|{cell:<{width}}|\n{rule}\n"


def _with_reasons(batch: DataFrame, rejected: list[Rejected]) -> DataFrame:
    """Return the rejected records in full, each with its reason: the executors fetch them from the topic again."""
    spark = batch.sparkSession
    reasons = spark.createDataFrame(
        [(record.topic, record.partition, record.offset, reason) for record, reason in rejected],
        "topic STRING, partition INT, offset LONG, reason STRING",
    )
    return batch.join(F.broadcast(reasons), ["topic", "partition", "offset"], how="inner")


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the aggregator until it is stopped."""
    settings = Settings.from_env(os.environ)
    kafka.ensure_topics(settings, [messages.MODEL_WEIGHTS, messages.GLOBAL_MODEL, messages.DEAD_LETTER])
    publish = kafka.connect_publisher(settings, messages.GLOBAL_MODEL)
    spark = streams.start_session("CloudAggregator", settings)
    query = build_query(
        streams.read_topic(spark, settings, messages.MODEL_WEIGHTS, settings.max_updates_per_trigger),
        settings.checkpoint_dir / "cloud",
        settings.max_value_bytes,
        publish,
        lambda rejected: streams.write_dead_letters(rejected, settings),
        settings.trigger_interval_ms,
    )
    streams.run_query(query, ready=f"Cloud prêt : {messages.MODEL_WEIGHTS} -> {messages.GLOBAL_MODEL}")


if __name__ == "__main__":
    main()
