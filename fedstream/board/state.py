"""The board's state: a fold over what comes from the topics, without Kafka, clock or thread.

The same records give the same state, whether they are taken once or again: so it is the same after a restart.

    take, take_samples, take_ends, take_progress, take_last_words, take_services
        --> Board --> snapshot(now): what all else shows
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from fedstream.board.learning import Learning, drop_oldest, totals
from fedstream.board.samples import Samples, shown
from fedstream.board.streams import MicroBatch, Offsets, Row, Streams
from fedstream.errors import BadMessage
from fedstream.last_word import LastWord
from fedstream.messages.dead_letters import DeadLetter
from fedstream.messages.door import decode
from fedstream.messages.rounds import Event, GlobalModel, read_global, read_update
from fedstream.messages.topics import (
    DEAD_LETTER,
    EVENTS,
    GLOBAL_MODEL,
    MODEL_VERSIONS,
    MODEL_WEIGHTS,
    SENSOR_DATA,
    sensor_topic,
)
from fedstream.settings import Settings
from fedstream.stack import jobs

SCHEMA_VERSION = 1
MOST_EVENTS = 500
MOST_LETTERS = 200
MOST_SOURCES = 1000  # topics that dead letters come from
# Followed whole, from where the look back begins: so many of the newest records of each partition.
CONTROL_TOPICS = {MODEL_VERSIONS: 2000, GLOBAL_MODEL: 5000, MODEL_WEIGHTS: 5000, EVENTS: MOST_EVENTS, DEAD_LETTER: 500}
LISTS = ("rounds", "letters", "events")  # of a snapshot: they grow, and each row has a number
UNSHOWN = ("gaps", "micro_batches")  # of a snapshot: what only following a record needs


class Board:
    """All that is known."""

    def __init__(self, settings: Settings) -> None:
        """Begin before the first record."""
        self.learning = Learning(settings)
        self.streams = Streams()
        self.samples = Samples()
        self.unusable: dict[str, int] = dict.fromkeys(CONTROL_TOPICS, 0)  # records that are no messages, by topic
        self._letters: deque[Row] = deque(maxlen=MOST_LETTERS)
        self._event_number = self._letter_number = 0
        self._letter_counts: dict[str, int] = {}  # by the topic they come from
        self._events: deque[Row] = deque(maxlen=MOST_EVENTS)
        self._event_counts: dict[str, int] = {}
        self._next: dict[tuple[str, int], int] = {}  # the first offset of each partition not taken yet
        self._services: dict[str, str] = {}
        self._model_made_at: dict[tuple[str, int], float] = {}  # when each version came, by run and version

    @property
    def changes(self) -> int:
        """A number that grows when there is something new to be shown at once."""
        return self.learning.number + self._event_number + self._letter_number

    # --- what comes

    def take(self, record: Any) -> None:
        """Take a record of a control topic; one that was taken before changes nothing."""
        place = record.topic, record.partition
        if record.offset < self._next.get(place, 0):
            return
        self._next[place] = record.offset + 1
        try:
            self._take(record)
        except BadMessage:
            if record.value is not None:  # a tombstone of a compacted topic is no message, and no mistake
                self.unusable[record.topic] += 1

    def _take(self, record: Any) -> None:
        at = record.timestamp / 1000
        if record.topic == MODEL_WEIGHTS:
            message = read_update(record.value)
            self.learning.take_weight(message, (record.partition, record.offset), len(record.value), at)
        elif record.topic in (GLOBAL_MODEL, MODEL_VERSIONS):
            model = read_global(record.value)
            if isinstance(model, GlobalModel):
                self._model_made_at.setdefault((model.run_id, model.version), at)
                drop_oldest(self._model_made_at, 1000)
                self.learning.take_model(model, len(record.value) if record.topic == GLOBAL_MODEL else 0)
            else:
                self.learning.weight = model
        elif record.topic == EVENTS:
            event = decode(Event, record.value)
            self.learning.take_event(event)
            self._event_counts[event.kind] = self._event_counts.get(event.kind, 0) + 1
            drop_oldest(self._event_counts, MOST_SOURCES)
            self._event_number += 1
            self._events.append({"number": self._event_number, "at": at} | msgspec.to_builtins(event))
        elif record.topic == DEAD_LETTER:
            self._take_letter(decode(DeadLetter, record.value), at)

    def _take_letter(self, letter: DeadLetter, at: float) -> None:
        self._letter_counts[letter.topic] = self._letter_counts.get(letter.topic, 0) + 1
        drop_oldest(self._letter_counts, MOST_SOURCES)
        try:
            value = b64decode(letter.value or "", validate=True)
        except (binascii.Error, ValueError):
            value = b""
        self._letter_number += 1
        kept = ("topic", "partition", "offset", "by")
        self._letters.append(
            {"number": self._letter_number, "at": at, "reason": shown(letter.reason.encode())}
            | {name: getattr(letter, name) for name in kept}
            | {"text": shown(value), "bytes": len(value)}
        )

    def take_samples(self, records: Sequence[Any]) -> None:
        """Take some of the newest records of the data topics."""
        self.samples.take(records)

    def take_ends(self, at: float, ends: Offsets) -> None:
        """Take the ends of all topics at a time (s since 1970)."""
        self.streams.take_ends(at, ends)

    def take_progress(self, at: float, said: Sequence[jobs.Progress]) -> None:
        """Take what the drivers' files say."""
        self.streams.take_progress(at, said)

    def take_stopped(self, stopped: Collection[str]) -> None:
        """Take which jobs were stopped on purpose: nobody is to miss them."""
        self.streams.take_stopped(stopped)

    def take_last_words(self, at: float, words: Mapping[str, LastWord]) -> None:
        """Take what jobs said when they ended with an error."""
        self.streams.take_last_words(at, words)

    def take_services(self, troubles: Mapping[str, str]) -> None:
        """Take what is wrong with each service that was asked, by its name; an empty text: it is well."""
        self._services |= troubles

    # --- what it comes to

    def snapshot(self, now: float) -> Row:
        """Return all that is to be shown at a time (s since 1970), of plain values that are not changed any more."""
        nodes = self.learning.node_rows(now, self.samples.reading_bytes)
        ends, counted = self.streams.topic_rows(now), self.streams.counted()
        weight = self.learning.weight
        return {
            "schema_version": SCHEMA_VERSION,
            "at": now,
            "services": [{"name": name, "trouble": text} for name, text in self._services.items()],
            "jobs": self.streams.job_rows(now),
            "run": self.learning.run_row(),
            "weight": weight and msgspec.to_builtins(weight),
            "nodes": nodes,
            "bytes": {"reading": self.samples.reading_bytes} | totals(nodes),
            "versions": self.learning.version_rows(),
            "topics": [row | self.samples.last(row["topic"]) for row in ends],
            "queries": self.streams.query_rows(now),
            "rates": self._rates(now),
            "squares": self.samples.squares_row(),
            "alerts": self._alerts_row(now),
            "event_counts": dict(self._event_counts),
            "letter_counts": dict(self._letter_counts),
            "unusable": dict(self.unusable),
            "gaps": {row["node"]: self._gap(row["node"], counted) for row in nodes},
            "micro_batches": self.streams.trainings(),
            "rounds": [self.learning.rows[number] for number in sorted(self.learning.rows)],
            "letters": list(self._letters),
            "events": list(self._events),
        }

    def _gap(self, node: str, counted: Mapping[str, MicroBatch]) -> int | None:
        """Return how many records of its own topic a node's query has read, and its weight has not counted.

        0: what the weight counts are offsets. None: not known.
        """
        number = node.removeprefix("fog-")
        batch = counted.get(sensor_topic(int(number))) if number.isdecimal() else None
        count = self.learning.nodes[node].counted(batch.finished_at) if batch else None
        if batch is None or count is None:
            return None
        return sum(batch.offsets[sensor_topic(int(number))].values()) - count

    def _rates(self, now: float) -> dict[str, float]:
        """Return the records a second on the arrows of the picture."""
        readings = [topic for topic in self.streams.ends if topic.startswith(SENSOR_DATA)]
        others = {name: self.streams.rate(name, now) for name in (MODEL_WEIGHTS, GLOBAL_MODEL, DEAD_LETTER)}
        others |= {name: self.streams.rate(name, now) for name in ("numbers", "squares", "alerts")}
        return {"readings": sum(self.streams.rate(topic, now) for topic in readings)} | others

    def _alerts_row(self, now: float) -> Row | None:
        """Return the alerts, with how long ago the version that serves them was overtaken (0: it is the newest)."""
        row = self.samples.alerts_row()
        if row is None:
            return None
        later = [
            at
            for (run_id, version), at in self._model_made_at.items()
            if run_id == row["run_id"] and version > row["version"]
        ]
        return row | {"model_age_seconds": max(now - min(later), 0.0) if later else 0.0}
