"""Cloud aggregator: merges the nodes' running weights at once and their updates round by round, and sends both back.

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
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import click
import msgspec
from pyspark.sql import DataFrame, Row
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka, models
from fedstream.broker.deadline import DeadlineTimer
from fedstream.broker.position import Position, now_ms, start_option
from fedstream.broker.sole import FencedError, SolePublisher
from fedstream.errors import BadMessage
from fedstream.learning.models import configured_model
from fedstream.messages import topics
from fedstream.messages.dead_letters import dead_letter
from fedstream.messages.door import encode
from fedstream.messages.rounds import (
    Event,
    GlobalModel,
    ModelUpdate,
    answering_node,
    check_size,
    global_model,
    read_command,
    read_update,
)
from fedstream.messages.weights import merge_update, merged_weight
from fedstream.rounds.admission import check_growth
from fedstream.rounds.cloud_state import INITIAL, CloudState, Rounds, said_again
from fedstream.rounds.federation import Federation, resumable, strategy_of
from fedstream.rounds.nodes import is_known
from fedstream.rounds.run_state import is_of_model
from fedstream.rounds.runs import read_models
from fedstream.settings import Settings
from fedstream.spark import session, watchdog
from fedstream.spark.state import BatchState, Reset, StateError
from fedstream.tables import console_table, round_table
from fedstream.terminal import Command
from fedstream.texts import printable

TOPICS = f"{topics.MODEL_WEIGHTS},{topics.ROUND_CONTROL}"
MOST_BYTES = 2**25  # of records that are in the driver's memory at once


def read_state(value: dict[str, Any]) -> CloudState:
    """Return the state that was kept as this JSON value.

    Raises:
        StateError: it is that of another version of the program.
    """
    try:
        return msgspec.convert(value, CloudState, str_keys=True)
    except msgspec.ValidationError as error:
        msg = f"the cloud's state is of another version of fedstream ({error}); to begin anew: make reset S=cloud"
        raise StateError(msg) from error


class CloudAggregator:
    """What the cloud makes of a micro-batch's records: the latest weights, the rounds, and what is to be sent.

    Plain Python, and the same records give the same result. Make a new one for each micro-batch.
    """

    def __init__(self, state: CloudState, federation: Federation | None, settings: Settings) -> None:
        """Go on from a state; without a federation only the running weights are merged."""
        self.latest, self.federation, self.settings = state.latest, federation, settings
        self.weight_before = merged_weight(state.latest)
        self.rejected: list[tuple[Row, str]] = []  # records, with the reasons
        self.stale = 0  # weights that were replayed, or late
        self.unknown = 0  # weights of nodes that may not take part

    def take(self, record: Row, now: int) -> None:
        """Take in a record.

        All checks come before any change: a rejected one changes nothing but its node's count of bad updates.
        """
        try:
            if record.value and len(record.value) > self.settings.max_update_bytes:
                limit = f"MAX_UPDATE_BYTES={self.settings.max_update_bytes}"
                msg = f"value of {len(record.value)} bytes; expected at most {limit}"
                raise BadMessage(msg)
            if record.topic != topics.ROUND_CONTROL:
                self._take_update(record)
            elif self.federation:
                self.federation.obey(read_command(record.value), now)
        except BadMessage as error:
            self.rejected.append((record, str(error)))
        if self.federation:
            self.federation.settle(now)

    def _take_update(self, record: Row) -> None:
        try:
            update = read_update(record.value)
        except BadMessage as error:
            if self.federation and (node := answering_node(record.value)):
                self.federation.offend(node, str(error))
            raise
        is_answer, may_take_part = isinstance(update, ModelUpdate), is_known(update.node_id, self.settings)
        if may_take_part:
            check_growth(update, self.latest)
        if self.federation:
            self.federation.check(update)
            if isinstance(update, ModelUpdate):
                self.federation.receive(update, (record.partition, record.offset))
        if not may_take_part:
            self.unknown += not is_answer
            return
        is_newer = merge_update(self.latest, update)
        self.stale += not is_newer and not is_answer
        if self.federation:
            self.federation.hear(update)

    def outcome(self) -> CloudState:
        """Return the state after all records, with what is to be sent and said."""
        federation, weight = self.federation, merged_weight(self.latest)
        outgoing: list[topics.Outgoing] = []
        said = []
        if weight and weight != self.weight_before:
            outgoing.append((topics.GLOBAL_MODEL, topics.GLOBAL_MODEL_KEY, weight))
        for topic, key, message in federation.outbox if federation else ():
            outgoing.append((topic, key, message.with_weight(weight) if isinstance(message, GlobalModel) else message))
            if isinstance(message, Event):
                said.append(f"Cloud -> {message.kind} : {message.node_id or ''} {message.detail}")
            elif topic == topics.GLOBAL_MODEL:
                said.append(round_table(message))
        state = CloudState(dict(sorted(self.latest.items())), federation.run if federation else None, [], said)
        if federation and federation.is_to_be_said_again and state.opened:
            message, line = said_again(state.opened, state.latest)
            outgoing.append(message)
            said.append(line)
        state.outbox = [
            (topic, key, None if message is None else encode(message).decode()) for topic, key, message in outgoing
        ]
        return state


def new_id(settings: Settings) -> str:
    """Return the name of a run that begins now."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{settings.model.rpartition(':')[2].lower()}-{stamp}-{uuid.uuid4().hex[:4]}"


def in_parts(records: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield records in lists of at most MOST_BYTES: one list, most often."""
    part: list[Row] = []
    size = 0
    for record in records:
        length = len(record.value or "")
        if part and size + length > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    yield part


def take_in(records: Iterable[Row], value: dict[str, Any], rounds: Rounds, now: int) -> CloudAggregator:
    """Take in records, one by one in their topics' order; `value` is the state before, as JSON.

    A record that fails in a way that nobody foresaw is rejected, too: everything is computed anew without it.
    """
    left = sorted(records, key=lambda record: (record.topic, record.partition, record.offset))
    failed: list[tuple[Row, str]] = []
    while True:
        state = read_state(value)
        aggregator = CloudAggregator(state, rounds.open(state), rounds.settings)
        for record in left:
            try:
                aggregator.take(record, now)
            except Exception as error:
                logging.getLogger(__name__).exception("the record at %s is rejected", topics.place_of(record))
                failed.append((record, printable(f"internal: {type(error).__name__}: {error!s:.500}")))
                left.remove(record)
                break
        else:
            aggregator.rejected += failed
            if aggregator.federation:
                for record, reason in failed:
                    aggregator.federation.event("internal-error", f"{topics.place_of(record)} is rejected; {reason}")
            return aggregator


@dataclass(frozen=True)
class Outlets:
    """Where results go, and what time it is."""

    publish: Callable[..., None]
    arm_deadline: Callable[[GlobalModel | None], None]
    clock_ms: Callable[[], int] = now_ms


def merge_batch(batch: DataFrame, rounds: Rounds, outlets: Outlets, value: dict[str, Any]) -> dict[str, Any]:
    """Return the state after a micro-batch, as JSON; its rejected records go to `dead-letter`.

    However large the records are, few are in memory: Spark hands them over in parts (`parted_options`).
    """
    now, counts = outlets.clock_ms(), Counter[str]()
    sent: list[Any] = []
    said: list[str] = []
    for records in in_parts(batch.select("value", "topic", "partition", "offset").toLocalIterator()):
        taken = take_in(records, value, rounds, now)
        letters = [
            dead_letter(row.value, reason, (row.topic, row.partition, row.offset), now, "cloud")
            for row, reason in taken.rejected
        ]
        outlets.publish(*((topics.DEAD_LETTER, None, letter) for letter in letters))
        counts["rejeté(s) vers dead-letter"] += len(taken.rejected)
        counts["rejoué(s) ou en retard, ignoré(s)"] += taken.stale
        counts["de noeuds inconnus (KNOWN_NODES), ignoré(s)"] += taken.unknown
        value = msgspec.to_builtins(taken.outcome(), str_keys=True)
        sent += value["outbox"]
        said += value["said"]
    for what, count in counts.items():
        if count:
            print(f"Cloud -> {count} message(s) {what}", flush=True)
    return value | {"outbox": sent, "said": said}


def build_query(records: DataFrame, state: BatchState, rounds: Rounds, outlets: Outlets) -> DataStreamWriter:
    """Return the unstarted query: records of `model-weights` and `round-control` in, global models out.

    A micro-batch that Spark repeats after a crash is not merged again, but what it sends is sent again: the crash may
    have come before the first time.
    """

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        after = read_state(state.advance(batch_id, functools.partial(merge_batch, batch, rounds, outlets)))
        outlets.publish(*((topic, key, text and msgspec.Raw(text.encode())) for topic, key, text in after.outbox))
        print(*after.said, console_table(batch_id, merged_weight(after.latest)), sep="\n", flush=True)
        outlets.arm_deadline(after.opened)

    return session.foreach_batch(records, "cloud", handle_batch, state.folder, rounds.settings.cloud_interval_ms)


@click.command(cls=Command, help=__doc__)
@start_option
def main(start: Position | None) -> None:
    """Run the aggregator until it is stopped."""
    settings = Settings.from_env(os.environ)
    model = None
    if settings.model != "mean":  # bad options end the job here, by their names
        model = configured_model(settings)
        strategy_of(settings)
        first = global_model("none", 1, 0, model.initial_arrays(settings.seed))
        check_size(first, "a global model", settings.max_update_bytes)
    rounds = Rounds(settings, model, new_id(settings))
    kafka.ensure_topics(settings, [*kafka.ROUND_TOPICS, topics.DEAD_LETTER])
    folder = settings.checkpoint_dir / "cloud" / (f"from-{start}" if start else "")
    check_topics = watchdog.guard_topics(settings, TOPICS, folder)
    spark = session.start_session("CloudAggregator", settings)
    state = BatchState(folder, INITIAL, check_topics, settings.feature_names)
    saved = read_state(state.value)
    publish = SolePublisher(settings, "cloud")  # ends another one, so only once this one can go on
    if model and not saved.run:
        fit = functools.partial(resumable, settings=settings, model=model)
        if last := models.follow_models(settings, fit, "Cloud")(0):
            versions = read_models(kafka.read_topic(settings, topics.MODEL_VERSIONS))
            published = {model.version: model.fingerprint for model in versions if model.run_id == last.run_id}
            rounds = replace(rounds, last=last, published=published)
    timer = DeadlineTimer(settings, kafka.connect_publisher(settings))  # in a thread of its own
    if model and saved.opened and is_of_model(saved.run, settings):
        message, line = said_again(saved.opened, saved.latest)
        publish(message)
        print(line, flush=True)
        timer.arm(saved.opened)
    start = start or Reset.of(folder).start
    parts = kafka.parted_options(settings, MOST_BYTES)
    records = session.read_topic(spark, settings, TOPICS, settings.max_updates_per_trigger, start, **parts)
    query = build_query(records, state, rounds, Outlets(publish, timer.arm))
    try:
        session.run_query(settings, query, ready=f"Cloud prêt : {topics.MODEL_WEIGHTS} -> {topics.GLOBAL_MODEL}")
    except FencedError as error:
        session.end_for_good(error)  # started anew, it would end the other one, and that one it, for ever
        raise


if __name__ == "__main__":
    main()
