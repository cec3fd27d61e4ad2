"""Fog driver: runs one or more fog nodes, which learn from their readings and tell the cloud what they learned.

    sensor-data-node-N --> [sum up] --> running weight, at once --> model-weights (key fog-N)
                       --> [train]  --> update for each round   --> model-weights (key fog-N)
                                            ^-- global-model

Examples:
    spark-submit fog/fog_node.py --node 1
    spark-submit fog/fog_node.py --node 2 --topic sensor-data --sensors node-2,s1
    spark-submit fog/fog_node.py --node 1-50
    spark-submit fog/fog_node.py --topic 'sensor-data-node-.*'
    spark-submit fog/fog_node.py --node 1 --from 2026-11-22T10:00:00Z
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Any

import click
import msgspec
from pyspark.sql import DataFrame, Row
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka
from fedstream.broker.dead_letters import send_dead_letters
from fedstream.broker.position import Position, start_option
from fedstream.messages.topics import DEAD_LETTER, MODEL_WEIGHTS
from fedstream.messages.weights import NodeWeight, RunningSums
from fedstream.settings import Settings
from fedstream.spark import realtime, session, watchdog
from fedstream.spark.readings import RECORD, SUMS, NodeReadings
from fedstream.spark.scope import Scope, parse_nodes, share_slots
from fedstream.spark.state import BatchState, Publish, Reset
from fedstream.spark.training import OpenRounds, Trainer, build_training_query
from fedstream.terminal import Command

# --- summarise: records -> sums of each node; the executors send the bad ones to dead-letter


def summarise(records: DataFrame, readings: NodeReadings) -> DataFrame:
    """Reduce the records of a micro-batch to rows of count, rejected, sums and squares: for each node a row a task."""
    return records.select(*RECORD).mapInArrow(readings.sum_up, from_arrow_schema(SUMS))


# --- the fog node: sums of a micro-batch -> running sums -> running weight -> model-weights


class FogNode:
    """All fog nodes of this driver: what they have counted so far, and what they publish of it."""

    def __init__(self, settings: Settings, state: BatchState, publish: Publish, source: str = "") -> None:
        """Go on from the state; `source` names what is counted, and is empty for the node's whole own topic."""
        self.factors = [feature.factor for feature in settings.table]
        self.state, self.publish, self.source = state, publish, source

    @staticmethod
    def initial() -> dict[str, Any]:
        """Return the state before the first reading."""
        return {"sums": {}, "changed": []}

    def handle_batch(self, batch: DataFrame, batch_id: int) -> None:
        """Count a micro-batch, and publish the running weight of each node that it has changed.

        One that Spark repeats after a crash is not counted again: the state gives back its first result.
        """
        value = self.state.advance(batch_id, lambda before: self.count(before, batch.collect()))
        weights = [self.weight_of(node) for node in value["changed"]]
        self.publish(*((MODEL_WEIGHTS, weight.node_id, weight) for weight in weights if weight))
        for weight in filter(None, weights):
            print(f"{weight.node_id.capitalize()} -> poids envoyé : {weight.headline()}", flush=True)

    def count(self, before: dict[str, Any], summaries: Iterable[Row]) -> dict[str, Any]:
        """Return the state after the summaries of a micro-batch (rows of SUMS)."""
        sums = {node: msgspec.convert(value, RunningSums) for node, value in before["sums"].items()}
        changed = set()
        for row in summaries:
            node = str(row.node)
            more = RunningSums(row["count"], tuple(row.sums), tuple(row.squares), row.rejected)
            sums[node] = sums.get(node, RunningSums()) + more
            changed.add(node)
            if row.rejected:
                print(f"Fog-{node} -> {row.rejected} message(s) rejeté(s) vers dead-letter", flush=True)
        return {"sums": msgspec.to_builtins(sums), "changed": sorted(changed, key=int)}

    def weight_of(self, node: str) -> NodeWeight | None:
        """Return what a node has learned so far, or None while it has seen no good reading."""
        sums = msgspec.convert(self.state.value["sums"][node], RunningSums)
        if not sums.count:
            return None
        weight = round(sums.weight(self.factors), 4)
        return NodeWeight(f"fog-{node}", weight, sums.count, sums.rejected, sums.sums, sums.squares, self.source)

    def weights(self) -> dict[str, NodeWeight]:
        """Return the running weight of all nodes seen so far, by name."""
        return {weight.node_id: weight for weight in map(self.weight_of, self.state.value["sums"]) if weight}


def build_query(records: DataFrame, name: str, readings: NodeReadings, node: FogNode) -> DataStreamWriter:
    """Return the unstarted query: records in, weights out."""
    return session.foreach_batch(
        summarise(records, readings), name, node.handle_batch, node.state.folder, readings.settings.trigger_interval_ms
    )


# --- main


@click.command(cls=Command, help=__doc__)
@click.option("--node", "nodes", callback=lambda _, __, text: parse_nodes(text) if text else [], help="1, 1-50 or 1,3.")
@click.option("--topic", help="Topic to read, or a pattern with *. [default: sensor-data-node-N of each node]")
@click.option("--sensors", help="On a shared topic: the node's sensors, separated by commas. [default: node-N]")
@start_option
def main(nodes: list[int], topic: str | None, sensors: str | None, start: Position | None) -> None:
    """Run one or more fog nodes until they are stopped."""
    settings, scope = Settings.from_env(os.environ), Scope.of(nodes, topic, sensors)
    wanted = [] if "*" in scope.topics else scope.topics.split(",")
    kafka.ensure_topics(settings, [*wanted, *kafka.ROUND_TOPICS, DEAD_LETTER])
    folder, reset = scope.folder(settings.checkpoint_dir, start), Reset.of(settings.checkpoint_dir / scope.name)
    start = start or reset.start
    check_topics = watchdog.guard_topics(settings, scope.topics, folder)
    publish = kafka.connect_publisher(settings)
    spark = session.start_session(f"FogNode{scope.name.removeprefix('fog-')}", settings)

    is_trained = settings.model != "mean"
    partitions = kafka.count_partitions(settings, scope.topics) if wanted else 0
    weight_tasks, training_tasks = share_slots(realtime.count_slots(spark), len(wanted), partitions, is_trained)
    read = functools.partial(session.read_topic, spark, settings, scope.topics, start=start)
    reject = functools.partial(send_dead_letters, settings=settings)
    readings = NodeReadings(settings, scope.node_of_sensor, reject)

    source = scope.source(start, since=reset.at)
    state = BatchState(folder, FogNode.initial(), check_topics, settings.feature_names)
    node = FogNode(settings, state, publish, source)
    records = read(settings.max_offsets_per_trigger).coalesce(weight_tasks)
    queries = [build_query(records, scope.name, readings, node)]
    if is_trained:
        gathering: Any = kafka.gathering_options(settings, max(1, len(nodes)))
        gathered = read(settings.max_readings_per_update, **gathering).coalesce(training_tasks)
        state = BatchState(folder / "training", Trainer.initial())
        trainer = Trainer(settings, state, OpenRounds(settings), node.weights, publish)
        queries.append(build_training_query(gathered, readings, trainer))
    session.run_query(settings, *queries, ready=f"{scope.name.capitalize()} prêt : {scope.topics} -> {MODEL_WEIGHTS}")


if __name__ == "__main__":
    main()
