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
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka, models
from fedstream.broker.position import Position, now_ms, start_option
from fedstream.errors import BadMessage
from fedstream.learning.models import Model, make_model
from fedstream.messages import door, readings, topics
from fedstream.messages.rounds import GlobalModel, check_size, fit_model
from fedstream.messages.weights import GlobalWeight, NodeWeight, global_weight, merge_update
from fedstream.rounds import admission, drift, snapshot
from fedstream.rounds.federation import Federation
from fedstream.settings import Settings, command_help, parse_options
from fedstream.spark import expressions, session, watchdog
from fedstream.spark.state import BatchState
from fedstream.tables import console_table, round_table

TOPICS = f"{topics.MODEL_WEIGHTS},{topics.ROUND_CONTROL}"

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
    return door.read_json_object(record.value)


@dataclass
class Taken:
    """What has come of a micro-batch: its rejected records, and how many weights were replayed or late."""

    latest: dict[str, NodeWeight]  # by node
    federation: Federation | None
    rejected: list[Rejected] = field(default_factory=list)
    stale: int = 0

    def take(self, record: Row, settings: Settings, now: int) -> None:
        """Take in a record. All checks of a record come before any change, so that a rejected one changes nothing."""
        try:
            message = read_message(record, settings.max_update_bytes)
            if record.topic == topics.ROUND_CONTROL:
                if self.federation:
                    admission.obey(self.federation, message, now)
            else:
                update = NodeWeight.from_message(message)
                if self.federation:
                    admission.check_sums(self.federation, update)
                    if "round" in message:
                        admission.receive_message(self.federation, message, [record.partition, record.offset])
                    admission.hear(self.federation, update)
                is_newer = merge_update(self.latest, update)
                self.stale += not is_newer and "round" not in message
        except BadMessage as error:
            self.rejected.append((record, str(error)))
        if self.federation:
            self.federation.settle(now)


def take_in(
    records: Iterable[Row],
    latest: Mapping[str, NodeWeight],
    open_federation: Callable[[], Federation] | None,
    settings: Settings,
    now: int,
) -> Taken:
    """Take in a micro-batch, record by record in the topics' order.

    A record that fails in a way that nobody foresaw is rejected, too: everything is computed anew without it, from the
    same federation (`open_federation` gives it each time as it was before the micro-batch).
    """
    left = sorted(records, key=lambda record: (record.topic, record.partition, record.offset))
    failed: dict[str, Rejected] = {}  # by place
    while True:
        taken = Taken(dict(latest), open_federation() if open_federation else None)
        for place, record in enumerate(left):
            try:
                taken.take(record, settings, now)
            except Exception as error:
                where = f"{record.topic}[{record.partition}]@{record.offset}"
                logging.getLogger(__name__).exception("the record at %s is rejected", where)
                failed[where] = record, f"internal: {type(error).__name__}: {error!s:.500}"
                del left[place]
                break
        else:
            taken.rejected += failed.values()
            for where, (_, reason) in failed.items():
                if taken.federation:
                    taken.federation.event("internal-error", f"{where} is rejected; {reason}")
            return taken


def global_model(latest: Mapping[str, Any]) -> GlobalWeight | None:
    """Return the global model of the nodes' latest updates, or None while there is none."""
    updates = [NodeWeight.from_message(update) for update in latest.values()]
    if not updates:
        return None
    return GlobalWeight(global_weight(updates), sum(update.samples for update in updates), len(updates))


def say_again(
    value: Mapping[str, Any], open_federation: Callable[[Mapping[str, Any]], Federation], publish: Callable[..., None]
) -> None:
    """Publish the model of the round that is open in a saved value once more, word for word.

    A node that has answered ignores it. It is for the others: those that have joined since, or whose newest model is
    another one or has expired.
    """
    federation = open_federation(value["federation"])
    if federation.about:  # a state of before does not have the whole message
        weight = global_model(value["latest"])
        message = (weight.as_dict() if weight else {}) | federation.open_model().as_dict()
        publish((topics.GLOBAL_MODEL, federation.settings.model, message))
        print(f"Cloud -> ronde {federation.round} toujours ouverte : modèle redit", flush=True)


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
            opener = functools.partial(open_federation, value["federation"]) if open_federation else None
            known = {node: NodeWeight.from_message(update) for node, update in value["latest"].items()}
            rows = batch.select(*bounded_columns(settings.max_update_bytes)).collect()
            taken = take_in(rows, known, opener, settings, clock_ms())
            if taken.rejected:
                dead_letters(_with_reasons(batch, taken.rejected))
            for count, what in (
                (len(taken.rejected), "rejeté(s) vers dead-letter"),
                (taken.stale, "rejoué(s) ou en retard, ignoré(s)"),
            ):
                if count:
                    print(f"Cloud -> {count} message(s) {what}", flush=True)
            federation = taken.federation
            return {
                "latest": {node_id: update.as_dict() for node_id, update in sorted(taken.latest.items())},
                "federation": snapshot.snapshot(federation) if federation else None,
                "outbox": federation.outbox if federation else [],
                "is_to_be_said_again": bool(federation and federation.is_to_be_said_again),
            }

        value = state.advance(batch_id, compute)
        model = global_model(value["latest"])
        outgoing: list[topics.Outgoing] = []
        if model and value["latest"] != before:
            outgoing.append((topics.GLOBAL_MODEL, topics.GLOBAL_MODEL_KEY, model.as_dict()))
        for topic, key, message in value["outbox"]:
            weight = model.as_dict() if model and topic != topics.EVENTS else {}
            outgoing.append((topic, key, weight | message))
        publish(*outgoing)
        if open_federation and value.get("is_to_be_said_again"):
            say_again(value, open_federation, publish)
        for topic, _, message in value["outbox"]:
            if topic == topics.EVENTS:
                print(f"Cloud -> {message['kind']} : {message['node_id'] or ''} {message['detail']}", flush=True)
            elif topic == topics.GLOBAL_MODEL:
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
    saved: Mapping[str, Any] | None, settings: Settings, model: Model, last: GlobalModel | None
) -> Federation:
    """Return the federation that goes on: the saved one, else that of the last model on the topic, else a new one.

    The last model is one that is `resumable`.
    """
    if saved and saved["model"] == [settings.model, settings.model_options]:
        return snapshot.restore(saved, settings, model)
    if not saved and last:
        return snapshot.resume(last, settings, model)
    name = settings.model.rpartition(":")[2].lower()
    return Federation(f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:4]}").join(
        settings, model
    )


def resumable(last: GlobalModel, settings: Settings, model: Model) -> GlobalModel:
    """Return a model of the topic if a run can go on from it: one that the nodes, too, will take.

    Raises:
        BadMessage: it does not fit the settings.
    """
    last = fit_model(last, model.initial_arrays(settings.seed), settings, len(readings.FEATURES))
    snapshot.resume(last, settings, model)  # raises if the state of its strategy is none
    return last


def deadline_timer(settings: Settings, publish: Callable[..., None]) -> Callable[[Mapping[str, Any] | None], None]:
    """Return `arm(federation)`, which has a message sent to `round-control` when the open round's deadline passes.

    So the time, too, reaches the rounds as a record, in an order that a repeated micro-batch sees again. It is sent
    again each `round_deadline_seconds` while the round stays open.
    """
    armed: tuple[str, int] | None = None
    timer: threading.Timer | None = None

    def start(seconds: float, command: dict[str, Any]) -> None:
        nonlocal timer
        timer = threading.Timer(max(0.0, seconds), send, (command,))
        timer.daemon = True
        timer.start()

    def send(command: dict[str, Any]) -> None:
        seconds = settings.round_deadline_seconds
        try:
            publish((topics.ROUND_CONTROL, command["run_id"], command))
        except kafka.KafkaUnavailableError as error:  # or the round would stay open until the next message
            print(f"Cloud -> {error.message}", flush=True)
            seconds = 1.0
        if armed == (command["run_id"], command["round"]):
            start(seconds, command)

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
        first = GlobalModel("none", 1, 0, settings.model, settings.round_mode, model.initial_arrays(settings.seed))
        check_size(first.as_dict(), "a global model", settings.max_update_bytes)
        if settings.drift_threshold:
            threading.Thread(target=drift.detector_class, daemon=True).start()
    kafka.ensure_topics(settings, [*kafka.ROUND_TOPICS, topics.DEAD_LETTER])
    folder = settings.checkpoint_dir / "cloud" / (f"from-{start}" if start else "")
    check_topics = watchdog.guard_topics(settings, TOPICS, folder)
    publish = kafka.connect_publisher(settings)
    spark = session.start_session("CloudAggregator", settings)
    state = BatchState(folder, {"latest": {}, "federation": None, "outbox": []}, check_topics)
    if model:
        fit = functools.partial(resumable, settings=settings, model=model)
        last = None if state.value["federation"] else models.follow_models(settings, fit, "Cloud")(0)
        opener = functools.partial(open_federation, settings=settings, model=model, last=last)
        if state.value["federation"]:
            say_again(state.value, opener, publish)
    arm_deadline = deadline_timer(settings, publish)
    arm_deadline(state.value["federation"])
    records = session.read_topic(spark, settings, TOPICS, settings.max_updates_per_trigger, start)
    reject = functools.partial(expressions.write_dead_letters, settings=settings)
    query = build_query(records, state, settings, opener, publish, reject, now_ms, arm_deadline)
    session.run_query(query, ready=f"Cloud prêt : {topics.MODEL_WEIGHTS} -> {topics.GLOBAL_MODEL}")


if __name__ == "__main__":
    main()
