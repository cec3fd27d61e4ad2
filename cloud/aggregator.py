"""Cloud aggregator: merges what the nodes have learned into the global model, round by round, and sends it back.

    model-weights --> [latest weight of each node] --> mean weighted by samples --> global-model (key weight)
                  --> [updates of the round]       --> Flower strategy          --> global-model (key MODEL)
    round-control --> [deadlines, rollbacks]       --^                              model-versions, events

Examples:
    spark-submit cloud/aggregator.py
    spark-submit cloud/aggregator.py --from 2026-11-22T10:00:00Z
"""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream import admission, drift, kafka, messages, registry, snapshot, streams
from fedstream import arrays as wire
from fedstream.console import console_table, round_table
from fedstream.messages import BadMessage, GlobalModel, NodeUpdate
from fedstream.model import global_weight, merge_update
from fedstream.models import Model, make_model
from fedstream.position import Position, now_ms, start_option
from fedstream.protocol import RoundModel
from fedstream.rounds import Federation
from fedstream.settings import Settings, command_help, parse_options
from fedstream.state import BatchState

TOPICS = f"{messages.MODEL_WEIGHTS},{messages.ROUND_CONTROL}"

Rejected = tuple[Row, str]  # a record of the topic and the reason


@functools.cache
def bounded_columns(max_value_bytes: int) -> list[Column]:
    """Return what the handler needs of a record; an over-long value stays behind, its size comes along.

    Made once: for each micro-batch that took 16 ms each time.
    """
    value = F.when(F.length("value") <= max_value_bytes, F.col("value")).alias("value")
    return [value, F.length("value").alias("size"), *map(F.col, ("topic", "partition", "offset"))]


def read_message(record: Row, max_value_bytes: int) -> dict[str, Any]:
    """Return a record's JSON object.

    Raises:
        BadMessage: it is too long or not a JSON object.
    """
    if (record.size or 0) > max_value_bytes:
        msg = f"value of {record.size} bytes; expected at most MAX_UPDATE_BYTES={max_value_bytes}"
        raise BadMessage(msg)
    return messages.read_json_object(record.value)


def take_in(
    records: Iterable[Row], latest: dict[str, NodeUpdate], federation: Federation | None, settings: Settings, now: int
) -> tuple[dict[str, NodeUpdate], list[Rejected], int]:
    """Take in a micro-batch, record by record in the topics' order; the federation changes as it goes.

    Returns the latest update of each node, the rejected records, and how many weights were replayed or late.
    """
    latest = dict(latest)
    rejected: list[Rejected] = []
    stale = 0
    for record in sorted(records, key=lambda record: (record.topic, record.partition, record.offset)):
        try:
            message = read_message(record, settings.max_update_bytes)
            if record.topic == messages.ROUND_CONTROL:
                if federation:
                    admission.obey(federation, message, now)
            else:
                update = NodeUpdate.from_message(message)
                if federation and "round" in message:
                    admission.receive_message(federation, message, [record.partition, record.offset])
                is_newer = merge_update(latest, update)
                stale += not is_newer and "round" not in message
                if federation:
                    admission.hear(federation, update)
        except BadMessage as error:
            rejected.append((record, str(error)))
        if federation:
            federation.settle(now)
    return latest, rejected, stale


def global_model(latest: Mapping[str, Any]) -> GlobalModel | None:
    """Return the global model of the nodes' latest updates, or None while there is none."""
    updates = [NodeUpdate.from_message(update) for update in latest.values()]
    if not updates:
        return None
    return GlobalModel(global_weight(updates), sum(update.samples for update in updates), len(updates))


def build_query(
    records: DataFrame,
    state: BatchState,
    settings: Settings,
    open_federation: Callable[[Mapping[str, Any] | None], Federation] | None,
    publish: Callable[..., None],
    dead_letters: Callable[[DataFrame], None],
    clock_ms: Callable[[], int],
    arm_deadline: Callable[[Mapping[str, Any] | None], None],
) -> DataStreamWriter:
    """Return the unstarted query: records of `model-weights` and `round-control` in, global models to `publish`.

    `state` keeps the nodes' latest updates, the federation (none without `open_federation`: MODEL=mean has no rounds),
    and what a micro-batch has to send. One that Spark repeats after a crash is not merged again, but what it sends is
    sent again: the crash may have come before the first time.
    """

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        before = state.value["latest"] if batch_id != state.batch_id else None

        def compute(value: dict[str, Any]) -> dict[str, Any]:
            federation = open_federation(value["federation"]) if open_federation else None
            known = {node: NodeUpdate.from_message(update) for node, update in value["latest"].items()}
            rows = batch.select(*bounded_columns(settings.max_update_bytes)).collect()
            latest, rejected, stale = take_in(rows, known, federation, settings, clock_ms())
            if rejected:
                dead_letters(_with_reasons(batch, rejected))
            for count, what in (
                (len(rejected), "rejeté(s) vers dead-letter"),
                (stale, "rejoué(s) ou en retard, ignoré(s)"),
            ):
                if count:
                    print(f"Cloud -> {count} message(s) {what}", flush=True)
            return {
                "latest": {node_id: update.as_dict() for node_id, update in sorted(latest.items())},
                "federation": snapshot.snapshot(federation) if federation else None,
                "outbox": federation.outbox if federation else [],
            }

        value = state.advance(batch_id, compute)
        model = global_model(value["latest"])
        outgoing: list[messages.Outgoing] = []
        if model and value["latest"] != before:
            outgoing.append((messages.GLOBAL_MODEL, messages.GLOBAL_MODEL_KEY, model.as_dict()))
        for topic, key, message in value["outbox"]:
            weight = model.as_dict() if model and topic != messages.EVENTS else {}
            outgoing.append((topic, key, weight | message))
        publish(*outgoing)
        for topic, _, message in value["outbox"]:
            if topic == messages.EVENTS:
                print(f"Cloud -> {message['kind']} : {message['node_id'] or ''} {message['detail']}", flush=True)
            elif topic == messages.GLOBAL_MODEL:
                print(round_table(message), flush=True)
        print(console_table(batch_id, model), flush=True)
        arm_deadline(value["federation"])

    return (
        records.writeStream.queryName("cloud")
        .foreachBatch(handle_batch)
        .option("checkpointLocation", str(state.folder / "spark"))
        .trigger(processingTime=f"{settings.cloud_interval_ms} milliseconds")
    )


def _with_reasons(batch: DataFrame, rejected: list[Rejected]) -> DataFrame:
    """Return the rejected records in full, each with its reason: the executors fetch them from the topic again."""
    reasons = batch.sparkSession.createDataFrame(
        [(record.topic, record.partition, record.offset, reason) for record, reason in rejected],
        "topic STRING, partition INT, offset LONG, reason STRING",
    )
    return batch.join(F.broadcast(reasons), ["topic", "partition", "offset"], how="inner")


def open_federation(
    saved: Mapping[str, Any] | None, settings: Settings, model: Model, last: RoundModel | None
) -> Federation:
    """Return the federation that goes on: the saved one, else that of the last model on the topic, else a new one."""
    if saved and saved["model"] == [settings.model, settings.model_options]:
        return snapshot.restore(saved, settings, model)
    is_alike = last and wire.layout(last.arrays) == wire.layout(model.initial_arrays(settings.seed))
    if not saved and last and last.model == settings.model and is_alike:
        return snapshot.resume(last, settings, model)
    name = settings.model.rpartition(":")[2].lower()
    return Federation(f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:4]}").join(
        settings, model
    )


def deadline_timer(settings: Settings, publish: Callable[..., None]) -> Callable[[Mapping[str, Any] | None], None]:
    """Return `arm(federation)`, which has a message sent to `round-control` when the open round's deadline passes.

    So the time, too, reaches the rounds as a record, in an order that a repeated micro-batch sees again.
    """
    armed: tuple[str, int] | None = None
    timer: threading.Timer | None = None

    def start(seconds: float, command: dict[str, Any]) -> None:
        nonlocal timer
        timer = threading.Timer(max(0.0, seconds), send, (command,))
        timer.daemon = True
        timer.start()

    def send(command: dict[str, Any]) -> None:
        try:
            publish((messages.ROUND_CONTROL, command["run_id"], command))
        except kafka.KafkaUnavailableError as error:  # or the round would stay open until the next message
            print(f"Cloud -> {error.message}", flush=True)
            start(1.0, command)

    def arm(federation: Mapping[str, Any] | None) -> None:
        nonlocal armed
        if not federation or not federation["round"] or armed == (federation["run_id"], federation["round"]):
            return
        armed = (federation["run_id"], federation["round"])
        if timer:
            timer.cancel()
        command = {"command": "deadline", "run_id": armed[0], "round": armed[1]}
        start(federation["opened_at"] / 1000 + settings.round_deadline_seconds - time.time(), command)

    return arm


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@start_option
def main(start: Position | None) -> None:
    """Run the aggregator until it is stopped."""
    settings = Settings.from_env(os.environ)
    model = opener = None
    if settings.model != "mean":  # bad options end the job here, by their names
        model = make_model(settings.model, parse_options("MODEL_OPTIONS", settings.model_options))
        Federation("none").join(settings, model)
        if settings.drift_threshold:
            threading.Thread(target=drift.detector_class, daemon=True).start()
    kafka.ensure_topics(settings, [*kafka.ROUND_TOPICS, messages.DEAD_LETTER])
    publish = kafka.connect_publisher(settings)
    spark = streams.start_session("CloudAggregator", settings)
    folder = settings.checkpoint_dir / "cloud" / (f"from-{start}" if start else "")
    state = BatchState(folder, initial={"latest": {}, "federation": None, "outbox": []})
    if model:
        last = None if state.value["federation"] else registry.follow_models(settings)(0)
        opener = functools.partial(open_federation, settings=settings, model=model, last=last)
    arm_deadline = deadline_timer(settings, publish)
    arm_deadline(state.value["federation"])
    records = streams.read_topic(spark, settings, TOPICS, settings.max_updates_per_trigger, start)
    reject = functools.partial(streams.write_dead_letters, settings=settings)
    query = build_query(records, state, settings, opener, publish, reject, now_ms, arm_deadline)
    streams.run_query(query, ready=f"Cloud prêt : {messages.MODEL_WEIGHTS} -> {messages.GLOBAL_MODEL}")


if __name__ == "__main__":
    main()
