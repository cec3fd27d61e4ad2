"""Brings the board what is on Kafka and what the drivers say of themselves, once a second and whenever records come."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from fedstream import last_word
from fedstream.board.state import CONTROL_TOPICS, Board
from fedstream.board.streams import Offsets, Row
from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.messages.topics import ALERTS, NUMBERS, SENSOR_DATA, SQUARES
from fedstream.settings import Settings
from fedstream.stack import health, jobs

LOOK_SECONDS = 1.0
LIST_SECONDS = 5.0  # a job may have made a topic
POLL_MS = 200  # records of control topics are waited for so long at once
ANSWER_MS = 5000  # the broker is away if it has not answered by then
SERVICES_SECONDS = 5.0
SAMPLE_SECONDS = 2.0
SAMPLED = 20  # newest records of a partition
MOST_SAMPLED = 50  # partitions at once
MOST_TOPICS = 200
SAMPLED_TOPICS = (SENSOR_DATA, NUMBERS, SQUARES, ALERTS)
MOST_POLLED = 500  # records at once: bounds memory


class Feed:
    """Reads for a board, and publishes a snapshot of it after each look."""

    def __init__(self, settings: Settings, publish: Callable[[Row], None]) -> None:
        """Take where snapshots go; nothing is read yet."""
        # A fetch that waits as briefly as those of jobs would be asked a hundred times a second.
        waits: dict[str, Any] = {"wait_timeout_seconds": ANSWER_MS / 1000, "fetch_max_wait_ms": POLL_MS}
        self._settings, self._publish = replace(settings, **waits), publish
        self._board = Board(settings)
        self._spark = ""

    def start(self) -> None:
        """Begin, in threads that end with the process."""
        for target in (self._ask_spark, self._run):
            threading.Thread(target=target, daemon=True).start()

    def _ask_spark(self) -> None:
        while True:
            try:
                health.check("spark", os.environ)
                self._spark = ""
            except (health.NotReadyError, KeyError) as error:
                self._spark = str(error)
            time.sleep(SERVICES_SECONDS)

    def _run(self) -> None:
        try:
            self._read_for_ever()
        except BaseException:  # a fault of this program, never to be hidden by a page that stands still
            logging.getLogger(__name__).exception("the board ends, and is started anew")
            os._exit(1)

    def _read_for_ever(self) -> None:
        while True:
            try:
                with (
                    closing(kafka.connect_consumer(self._settings, max_poll_records=MOST_POLLED)) as control,
                    closing(kafka.connect_consumer(self._settings)) as other,
                ):
                    self._follow(control, Look(other))
            except MadeAnewError:
                self._board = Board(self._settings)
            except (KafkaError, StackError) as error:
                self._show(f"{error}")
                time.sleep(LOOK_SECONDS)

    def _follow(self, control: Any, look: Look) -> None:
        """Read on until the broker is away. What was read before is read again, and changes nothing."""
        place(control)
        looked_at, shown = 0.0, self._board.changes
        while True:
            for batch in control.poll(timeout_ms=POLL_MS).values():
                for record in batch:
                    self._board.take(record)
            if time.time() - looked_at >= LOOK_SECONDS:
                looked_at = time.time()
                ends = look.ends()
                if is_made_anew(self._board.streams.ends, ends):
                    raise MadeAnewError
                self._board.take_ends(looked_at, ends)
                self._board.take_samples(look.samples(looked_at))
            elif self._board.changes == shown:
                continue
            shown = self._board.changes
            self._show("")

    def _show(self, kafka_trouble: str) -> None:
        now = time.time()
        self._board.take_services({"kafka": kafka_trouble, "spark": self._spark})
        self._board.take_progress(now, jobs.read_all(self._settings.checkpoint_dir))
        self._board.take_stopped(jobs.read_stopped(self._settings.checkpoint_dir))
        self._board.take_last_words(now, last_word.read_all(self._settings.checkpoint_dir))
        self._publish(self._board.snapshot(now))


class MadeAnewError(Exception):
    """The topics were deleted and made anew: what is known is of the old ones."""


class Look:
    """Looks at all topics: where they end, and at some of the newest records of those that hold data."""

    def __init__(self, consumer: Any) -> None:
        """Take a consumer for this alone."""
        self._consumer = consumer
        self._partitions: list[TopicPartition] = []
        self._listed_at = self._sampled_at = self._answered_at = 0.0
        self._ends: dict[TopicPartition, int] = {}
        self._sampled: dict[TopicPartition, int] = {}  # where each ended at the last sample

    def ends(self) -> Offsets:
        """Return the ends of all topics.

        Raises:
            KafkaError: the broker does not answer.
            NotKnownError: for some time it has not known of a partition.
        """
        if time.time() - self._listed_at > LIST_SECONDS:
            self._listed_at = time.time()
            names = sorted(name for name in self._consumer.topics() if not name.startswith("__"))[:MOST_TOPICS]
            self._partitions = kafka.partitions_of(self._consumer, ",".join(names)) if names else []
        try:
            self._ends = kafka.ends_of(self._consumer, self._partitions, ANSWER_MS)
            self._answered_at = time.time()
        except kafka.NotKnownError:  # a topic that was just made has no leader yet
            if time.time() - self._answered_at > ANSWER_MS / 1000:
                raise
        ends: Offsets = {}
        for each, end in self._ends.items():
            ends.setdefault(each.topic, {})[str(each.partition)] = end
        return ends

    def samples(self, now: float) -> list[Any]:
        """Return the newest records of the data topics that have some since the last sample."""
        if now - self._sampled_at < SAMPLE_SECONDS:
            return []
        self._sampled_at = now
        grown = {
            each: end
            for each, end in self._ends.items()
            if each.topic.startswith(SAMPLED_TOPICS) and end > self._sampled.get(each, 0)
        }
        grown = dict(list(grown.items())[:MOST_SAMPLED])
        self._sampled |= grown
        self._consumer.assign(list(grown))
        for each, end in grown.items():
            self._consumer.seek(each, max(end - SAMPLED, 0))
        found: list[Any] = []
        deadline = time.monotonic() + LOOK_SECONDS / 2
        while time.monotonic() < deadline and any(self._consumer.position(each) < grown[each] for each in grown):
            found += [record for batch in self._consumer.poll(timeout_ms=100).values() for record in batch]
        return found


def place(consumer: Any) -> None:
    """Have a consumer begin where the look back on the control topics begins.

    Raises:
        StackError: there are no such topics yet.
    """
    partitions = kafka.partitions_of(consumer, ",".join(CONTROL_TOPICS))
    if missing := sorted(set(CONTROL_TOPICS) - {each.topic for each in partitions}):
        msg = f"there is no topic {missing[0]} yet; make up makes it"
        raise StackError(msg)
    consumer.assign(partitions)
    starts = consumer.beginning_offsets(partitions, timeout_ms=ANSWER_MS)
    ends = kafka.ends_of(consumer, partitions, ANSWER_MS)
    for each in partitions:
        consumer.seek(each, max(starts[each], ends[each] - CONTROL_TOPICS[each.topic]))


def is_made_anew(before: Offsets, now: Offsets) -> bool:
    """Tell whether a control topic ends before where it once ended."""
    return any(
        now.get(topic, {}).get(number, end) < end
        for topic in CONTROL_TOPICS
        for number, end in before.get(topic, {}).items()
    )
