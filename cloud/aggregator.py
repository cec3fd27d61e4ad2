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
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import msgspec
from pyspark.sql import DataFrame
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import kafka, models
from fedstream.broker.deadline import DeadlineTimer
from fedstream.broker.position import Position, now_ms, start_option
from fedstream.broker.sole import FencedError, SolePublisher
from fedstream.messages import topics
from fedstream.messages.door import encode
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.weights import merged_weight
from fedstream.rounds.aggregator import CloudAggregator, take_in
from fedstream.rounds.cloud_state import INITIAL, CloudState, Rounds, read_state, said_again
from fedstream.rounds.runs import read_models
from fedstream.settings import Settings
from fedstream.spark import session, watchdog
from fedstream.spark.state import BatchState, Reset
from fedstream.tables import console_table, told
from fedstream.terminal import Command

TOPICS = f"{topics.MODEL_WEIGHTS},{topics.ROUND_CONTROL}"
MOST_BYTES = 2**25  # of records that are in the driver's memory at once


def outcome(aggregator: CloudAggregator) -> CloudState:
    """Return the state after all records, with what is to be sent and said."""
    state, outgoing = aggregator.state(), aggregator.outgoing()
    state.said = [line for topic, _, message in outgoing if (line := told(topic, message))]
    if aggregator.federation and aggregator.federation.is_to_be_said_again and state.opened:
        again, line = said_again(state.opened, state.latest)
        outgoing.append(again)
        state.said.append(line)
    state.outbox = [
        (topic, key, None if message is None else encode(message).decode()) for topic, key, message in outgoing
    ]
    return state


def behind_topics(rounds: Rounds) -> Rounds:
    """Return the rounds of a cloud without a state of its own: they go on from the last model on the topics."""
    settings = rounds.settings
    if not (last := models.follow_models(settings, rounds.resumable, "Cloud")(0)):
        return rounds
    return rounds.behind(last, read_models(kafka.read_topic(settings, topics.MODEL_VERSIONS)))


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
    for records in session.in_parts(batch.select("value", "topic", "partition", "offset"), MOST_BYTES):
        taken = take_in(records, value, rounds, now)
        outlets.publish(*((topics.DEAD_LETTER, None, letter) for letter in taken.letters(now)))
        counts["rejeté(s) vers dead-letter"] += len(taken.rejected)
        counts["rejoué(s) ou en retard, ignoré(s)"] += taken.stale
        counts["de noeuds inconnus (KNOWN_NODES), ignoré(s)"] += taken.unknown
        value = msgspec.to_builtins(outcome(taken), str_keys=True)
        sent += value["outbox"]
        said += value["said"]
    for what, count in (+counts).items():
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
    rounds = Rounds.of(settings)  # bad options end the job here, by their names
    kafka.ensure_topics(settings, [*kafka.ROUND_TOPICS, topics.DEAD_LETTER])
    folder = settings.checkpoint_dir / "cloud" / (f"from-{start}" if start else "")
    check_topics = watchdog.guard_topics(settings, TOPICS, folder)
    spark = session.start_session("CloudAggregator", settings)
    state = BatchState(folder, INITIAL, check_topics, settings.feature_names)
    saved = read_state(state.value)
    publish = SolePublisher(settings, "cloud")  # ends another one, so only once this one can go on
    if rounds.model and not saved.run:
        rounds = behind_topics(rounds)
    timer = DeadlineTimer(settings, kafka.connect_publisher(settings))  # in a thread of its own
    if opened := rounds.still_open(saved):
        message, line = said_again(opened, saved.latest)
        publish(message)
        print(line, flush=True)
        timer.arm(opened)
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
