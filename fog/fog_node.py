"""Fog node: learns from its nodes' readings, and publishes what it has learned to the cloud.

    sensor-data-node-N --> [sum up]       --> running weight, at once --> model-weights (key fog-N)
                       --> [parse, train] --> update for each round   --> model-weights (key fog-N)
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
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import click
import msgspec
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka, models
from fedstream.broker.position import Position, now_ms, start_option
from fedstream.errors import StackError
from fedstream.learning.models import make_model
from fedstream.learning.training import train_config
from fedstream.messages import readings, topics
from fedstream.messages.rounds import GlobalModel, fit_model
from fedstream.messages.weights import NodeWeight, RunningSums
from fedstream.settings import Settings, command_help, parse_options
from fedstream.spark import realtime, streams, trainer, watchdog
from fedstream.spark.plain import LONGEST, RECORD, SCHEMA, Plain
from fedstream.spark.state import BatchState, reset_at

FACTORS = (1, 100)  # of the features' means in the report's weight
FEW_TOPICS = 8  # of a driver that trains their nodes in one task


def node_of_topic(records: DataFrame) -> DataFrame:
    """Add `node`: the number at the end of a record's topic; topics without one (sensor-data) are nobody's."""
    quick = F.substring_index("topic", "-", -1).try_cast("int")  # cheaper than the expression below
    node = F.coalesce(quick, F.regexp_extract("topic", topics.NODE_OF_TOPIC, 1).try_cast("int"))
    return records.withColumn("node", node).dropna(subset="node")


def node_of_sensor(readings: DataFrame, sensors: Mapping[str, int]) -> DataFrame:
    """Add `node` to the readings of a shared topic, and keep those of these sensors.

    Records that name no sensor concern node 1, so that each is kept in `dead-letter` once, not once a node.
    """
    table = F.create_map(*(F.lit(part) for entry in sensors.items() for part in entry))
    nameless = F.lit(1 if 1 in sensors.values() else None).cast("int")
    node = F.when(F.col("sensor_id").isNull(), nameless).otherwise(F.try_element_at(table, F.col("sensor_id")))
    return readings.withColumn("node", node).where("node IS NOT NULL")


def parse(records: DataFrame, settings: Settings, sensors: Mapping[str, int] | None) -> DataFrame:
    """Return the readings of these records, each with its node (told by the topic, or by the sensors of a shared one).

    Those of nobody are left out; the bad ones have a reason.
    """
    readings = streams.parse_readings(records, settings)
    return node_of_topic(readings) if sensors is None else node_of_sensor(readings, sensors)


@functools.cache
def is_withheld() -> Column:
    """Tell the records without a value for Python: it is null, or too long."""
    return F.coalesce(F.length("value") > LONGEST, F.lit(True))


def summarise_plain(records: DataFrame, plain: Plain) -> DataFrame:
    """Reduce the plain readings of a micro-batch to a few sums; the odd records stay, without a value if withheld."""
    value = F.when(F.length("value") <= LONGEST, F.col("value"))  # costs each record less than is_withheld()
    return records.withColumn("value", value).select(*RECORD).mapInArrow(plain.sum_up, from_arrow_schema(SCHEMA))


@functools.cache
def is_sum() -> Column:
    """Tell the sums from the odd records."""
    return F.col("odd").isNotNull()


@functools.cache
def totals_columns() -> list[Column]:
    """Return the columns of a node's totals. Made once: for each micro-batch that took 65 ms each time."""
    is_good = F.col("reason").isNull()
    sums = [
        F.coalesce(F.sum(F.when(is_good, F.col(name))), F.lit(0.0)).alias(f"sum_{name}") for name in readings.FEATURES
    ]
    squares = [
        F.coalesce(F.sum(F.when(is_good, F.col(name) * F.col(name))), F.lit(0.0)).alias(f"sum_squared_{name}")
        for name in readings.FEATURES
    ]
    return [F.count_if(is_good).alias("count"), *sums, *squares, F.count_if(~is_good).alias("rejected")]


def summarise(readings: DataFrame) -> DataFrame:
    """Reduce readings to one row a node: count, sums, sums of squares, rejected. One Spark job."""
    return readings.groupBy("node").agg(*totals_columns())


def learn(totals: dict[str, Any], summary: Row) -> dict[str, Any]:
    """Return a node's running totals after what a summary adds."""
    sums, squares = (tuple(summary[kind + name] for name in readings.FEATURES) for kind in ("sum_", "sum_squared_"))
    more = RunningSums(summary["count"], sums, squares, summary.rejected)  # Row.count is a method
    return msgspec.structs.asdict(msgspec.convert(totals, RunningSums) + more)


def node_update(node: str, totals: dict[str, Any]) -> NodeWeight | None:
    """Return what the node has learned, or None while it has seen no good reading."""
    learned = msgspec.convert(totals, RunningSums)
    if learned.count == 0:
        return None
    return NodeWeight(
        f"fog-{node}",
        round(learned.weight(FACTORS), 4),
        learned.count,
        learned.rejected,
        learned.sums,
        learned.squares,
    )


def build_query(
    records: DataFrame,
    name: str,
    plain: Plain,
    state: BatchState,
    publish: Callable[..., None],
    dead_letters: Callable[[DataFrame], None],
    read_again: Callable[[list[Row]], DataFrame],
) -> DataStreamWriter:
    """Return the unstarted query: records in, weights to `publish`, the bad to `dead_letters`.

    `read_again` returns the records of partitions, each (topic, partition, first, last offset).
    `state` keeps {"totals": {node: totals}, "changed": [node]}. A micro-batch that Spark repeats after a crash is not
    counted again: `BatchState` gives back its first result.
    """

    def with_values(odd: DataFrame) -> DataFrame:
        ends = F.min("offset").alias("first"), F.max("offset").alias("last")
        ranges = odd.where(is_withheld()).groupBy("topic", "partition").agg(*ends).collect()
        return odd.where(~is_withheld()).union(read_again(ranges).where(is_withheld()).select(*RECORD))

    def take_odd(batch: DataFrame, are_withheld: bool) -> list[Row]:
        odd = batch.where(~is_sum()).select(*RECORD)
        odd = with_values(odd) if are_withheld else odd
        readings = parse(odd, plain.settings, plain.sensors).persist()
        summaries = summarise(readings).collect()
        rejected = [summary for summary in summaries if summary.rejected]
        if rejected:
            dead_letters(readings.where("reason IS NOT NULL"))
        for summary in rejected:
            print(f"Fog-{summary.node} -> {summary.rejected} message(s) rejeté(s) vers dead-letter", flush=True)
        readings.unpersist()
        return summaries

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        def compute(value: dict[str, Any]) -> dict[str, Any]:
            summaries = batch.where(is_sum()).collect()
            if any(summary.odd for summary in summaries):
                summaries += take_odd(batch, any(summary.withheld for summary in summaries))
            totals, changed = dict(value["totals"]), set()
            for summary in summaries:
                if summary.node is not None:
                    node = str(summary.node)
                    totals[node] = learn(totals.get(node, {}), summary)
                    changed.add(node)
            return {"totals": totals, "changed": sorted(changed, key=int)}

        value = state.advance(batch_id, compute)
        updates = [node_update(node, value["totals"][node]) for node in value["changed"]]
        publish(*((update.node_id, msgspec.to_builtins(update)) for update in updates if update))
        for node, update in zip(value["changed"], updates, strict=True):
            if update:
                print(f"Fog-{node} -> poids envoyé : {update.headline()}", flush=True)

    return (
        summarise_plain(records, plain)
        .writeStream.queryName(name)
        .foreachBatch(handle_batch)
        .option("checkpointLocation", str(state.folder / "spark"))
        .trigger(processingTime=f"{plain.settings.trigger_interval_ms} milliseconds")
    )


def node_messages(state: BatchState, wanted: Collection[str], timeout_seconds: float) -> dict[str, dict[str, Any]]:
    """Return the running weight and samples of all nodes seen so far, `fog-1` and so on; wait for the wanted ones.

    Raises:
        StackError: the sums of a wanted node are not there in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        updates = [node_update(node, totals) for node, totals in state.value["totals"].items()]
        found = {update.node_id: msgspec.to_builtins(update) for update in updates if update}
        missing = sorted(set(wanted) - set(found))
        if not missing:
            return found
        if time.monotonic() > deadline:
            msg = f"the sums of {', '.join(missing)} are not there after {timeout_seconds:g} s; see the log above"
            raise StackError(msg)
        time.sleep(0.05)


def round_waiter(settings: Settings) -> Callable[[Callable[[GlobalModel], bool]], GlobalModel]:
    """Return `wait(is_next)`, which blocks until the newest global model is one to train from.

    There is no end to that wait, since the cloud may start later; what is waited for is said now and then. A model that
    does not fit this node's is told and passed over.

    Raises:
        SettingError: MODEL, MODEL_OPTIONS or CLASS_WEIGHT cannot be used.
    """
    train_config(settings, {})
    own = make_model(settings.model, parse_options("MODEL_OPTIONS", settings.model_options))
    arrays = own.initial_arrays(settings.seed)
    fit = functools.partial(fit_model, own=arrays, settings=settings, features=len(readings.FEATURES))
    newest = models.follow_models(settings, fit, "Fog")

    def wait(is_next: Callable[[GlobalModel], bool]) -> GlobalModel:
        said_at = time.monotonic()
        while True:
            model = newest(0.5)
            if model and is_next(model):
                return model
            if time.monotonic() - said_at > settings.wait_timeout_seconds:
                said_at = time.monotonic()
                last = f"la ronde après {model.round}" if model else "la première ronde"
                print(f"Fog -> en attente de {last} sur {topics.GLOBAL_MODEL} (make run-cloud ?)", flush=True)

    return wait


def parse_nodes(text: str) -> list[int]:
    """Return the node numbers of `1`, `1-50` or `1,3,7-9`.

    Raises:
        click.BadParameter: a part is neither a number of at least 1 nor a range of such.
    """
    nodes: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 10_000):
            msg = f"{text!r}; expected node numbers from 1 to 10000: 1, 1-50 or 1,3,7-9"
            raise click.BadParameter(msg)
        nodes.update(range(int(first), int(last) + 1))
    return sorted(nodes)


def share_slots(slots: int, topics: int, partitions: int, is_trained: bool) -> tuple[int, int]:
    """Return in how many tasks running weights and trainings read so many topics (0 of a pattern: not known).

    Unbounded, each partition would be a task of its own, however few the slots are. The weights leave a slot to the
    training, if there is one. Grouping by node in one task needs no shuffle: for few nodes that saves more than a
    second core brings.
    """
    are_few = 0 < partitions == topics <= FEW_TOPICS
    return max(1, slots - is_trained), 1 if are_few else slots


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", "nodes", callback=lambda _, __, text: parse_nodes(text) if text else [], help="1, 1-50 or 1,3.")
@click.option("--topic", help="Topic to read, or a pattern with *. [default: sensor-data-node-N of each node]")
@click.option("--sensors", help="On a shared topic: the node's sensors, separated by commas. [default: node-N]")
@start_option
def main(nodes: list[int], topic: str | None, sensors: str | None, start: Position | None) -> None:
    """Run one or more fog nodes until they are stopped."""
    settings = Settings.from_env(os.environ)
    is_pattern = topic is not None and "*" in topic
    if is_pattern == bool(nodes) or (sensors and (len(nodes) > 1 or is_pattern)):
        msg = "expected --node, or --topic with a pattern that has a *; --sensors goes with one node and a shared topic"
        raise click.UsageError(msg)
    own_topics = [topics.sensor_topic(node) for node in nodes]
    topics = topic or ",".join(own_topics)
    is_shared = not is_pattern and topics.split(",") != own_topics
    name = f"fog-{nodes[0]}" if len(nodes) == 1 else f"fog-{nodes[0]}-{nodes[-1]}" if nodes else "fog-all"
    folder = settings.checkpoint_dir / name / topics.replace("*", "_")[:100] / (f"from-{start}" if start else "")
    since = reset_at(settings.checkpoint_dir / name)
    source = " ".join([topics] * is_shared + [f"from {start}"] * bool(start) + [f"since {since}"] * bool(since))
    wanted = [] if is_pattern else topics.split(",")
    kafka.ensure_topics(settings, [*wanted, *kafka.ROUND_TOPICS, topics.DEAD_LETTER])
    check_topics = watchdog.guard_topics(settings, topics, folder)
    own = sensors.split(",") if sensors else []
    of_sensors = {name: nodes[0] for name in own} or {f"node-{node}": node for node in nodes}
    node_of = of_sensors if is_shared else None
    send = kafka.connect_publisher(settings)
    spark = streams.start_session(f"FogNode{name.removeprefix('fog-')}", settings)
    partitions = 0 if is_pattern else kafka.count_partitions(settings, topics)
    is_trained = settings.model != "mean"
    weight_tasks, training_tasks = share_slots(realtime.count_slots(spark), len(wanted), partitions, is_trained)

    def publish(*updates: tuple[str, dict[str, Any]]) -> None:
        about = {"source": source} if source else {}
        send(*((topics.MODEL_WEIGHTS, node_id, update | about) for node_id, update in updates))

    def read(max_records: int, tasks: int, **options: str) -> DataFrame:
        return streams.read_topic(spark, settings, topics, max_records, start, **options).coalesce(tasks)

    state = BatchState(folder, {"totals": {}, "changed": []}, check_topics)
    reject = functools.partial(streams.write_dead_letters, settings=settings)
    records = read(settings.max_offsets_per_trigger, weight_tasks)
    again = functools.partial(streams.read_again, spark, settings)
    queries = [build_query(records, name, Plain(settings, node_of), state, publish, reject, again)]
    if is_trained:
        gathering = kafka.gathering_options(settings, max(1, len(nodes)))
        queries.append(
            trainer.build_training_query(
                parse(read(settings.max_readings_per_update, training_tasks, **gathering), settings, node_of),
                folder / "training",
                settings,
                round_waiter(settings),
                lambda wanted: node_messages(state, wanted, settings.wait_timeout_seconds),
                publish,
                now_ms,
            )
        )
    streams.run_query(*queries, ready=f"{name.capitalize()} prêt : {topics} -> {topics.MODEL_WEIGHTS}")


if __name__ == "__main__":
    main()
