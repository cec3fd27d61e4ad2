"""What became of a record, from its place on, by what the messages on the other topics say of it.

    reading --> dead letter, or alert --> running weight that counted it --> update that learned it --> version

Nothing is guessed: a link that the messages cannot tell is said to be one, with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fedstream.board.samples import shown
from fedstream.board.streams import MicroBatch
from fedstream.errors import BadMessage
from fedstream.messages.alerts import Alert
from fedstream.messages.dead_letters import DeadLetter
from fedstream.messages.door import decode
from fedstream.messages.readings import reading_format
from fedstream.messages.rounds import GlobalModel, ModelUpdate, read_global, read_update
from fedstream.messages.topics import (
    ALERTS,
    DEAD_LETTER,
    GLOBAL_MODEL,
    MODEL_WEIGHTS,
    SENSOR_DATA,
    node_of_topic,
    place_of,
)
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings

MOST_LETTERS = 5  # of one record: each job that reads it may refuse it
SLACK_MS = 1000  # of the clock of who sent a record before that of who reads it

Row = dict[str, Any]
Times = tuple[int, int | None]  # from the first to the last one, in ms since 1970


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Found(NamedTuple):
    """The records that a search has found; the search is whole if it has come to the topic's end."""

    records: list[Any]
    is_whole: bool


class Topics(Protocol):
    """The topics, of which not more is read than is asked for."""

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0: there is no such topic."""
        ...

    def record(self, place: Place) -> Any:
        """Return the record at a place, or "gone", "to-come" or "none" if there is none."""
        ...

    def search(self, topic: str, times_ms: Times, is_wanted: Callable[[Any], bool], most: int) -> Found:
        """Return the wanted records of a topic between two times, in order, up to so many."""
        ...


class Follower:
    """Follows one record."""

    def __init__(self, place: Place, topics: Topics, snapshot: Mapping[str, Any], settings: Settings) -> None:
        """Take the record's place, and what the board knows."""
        self._place, self._topics, self._snapshot, self._settings = place, topics, snapshot, settings
        self._steps: list[Row] = []

    def follow(self) -> Row:
        """Return the steps, each with what it says and what a text of it needs.

        `is_open`: one of them is still to come.
        """
        record = self._topics.record(self._place)
        if isinstance(record, str):
            self._say("reading", f"reading-{record}")
        else:
            self._say("reading", "reading", record, text=shown(record.value or b""))
            self._after(record)
        is_open = any(step["says"].endswith(("-not-yet", "-to-come")) for step in self._steps)
        return {"place": str(self._place), "steps": self._steps, "is_open": is_open}

    def _say(self, step: str, says: str, record: Any = None, **values: Any) -> None:
        where = {"at": record.timestamp / 1000, "place": place_of(record)} if record else {"at": None, "place": ""}
        self._steps.append({"step": step, "says": says} | where | values)

    def _say_missing(self, step: str, found: Found) -> None:
        self._say(step, f"{step}-not-yet" if found.is_whole else f"{step}-not-found")

    def _after(self, record: Any) -> None:
        since = record.timestamp - SLACK_MS
        letters = self._topics.search(DEAD_LETTER, (since, None), self._is_letter, MOST_LETTERS)
        refused_by = []
        for each in letters.records:
            letter = decode(DeadLetter, each.value)
            refused_by.append(letter.by)
            self._say("letter", "letter", each, reason=shown(letter.reason.encode()), by=letter.by or "–")
        is_reading = self._place.topic.startswith(SENSOR_DATA)
        if not refused_by and not letters.is_whole:
            self._say("letter", "letter-not-found")
        elif not refused_by and not is_reading:
            self._say("letter", "letter-none")
        if not is_reading:
            return
        if "alerts" not in refused_by:
            self._scored(since)
        node = node_of_topic(self._place.topic)
        if node is None:
            self._say("counted", "counted-shared")
            self._say("learned", "learned-shared")
            return
        name = f"fog-{node}"
        self._counted(name, since, name in refused_by)
        if name not in refused_by:
            self._learned(name, record)

    def _is_letter(self, record: Any) -> bool:
        letter = _read(lambda value: decode(DeadLetter, value), record)
        return letter is not None and (letter.topic, letter.partition, letter.offset) == self._place

    def _scored(self, since: int) -> None:
        if not self._topics.partitions(ALERTS):
            self._say("scored", "scored-never")
            return
        key = "/".join(map(str, self._place)).encode()
        found = self._topics.search(ALERTS, (since, None), lambda record: record.key == key, 1)
        alert = _read(lambda value: decode(Alert, value), found.records[0]) if found.records else None
        if alert is None:
            self._say_missing("scored", found)
        else:
            kept = ("probability", "model_version")
            says = "scored-alarm" if alert.alert else "scored"
            self._say("scored", says, found.records[0], **{name: getattr(alert, name) for name in kept})

    def _counted(self, node: str, since: int, is_refused: bool) -> None:
        """Find the first weight whose readings and rejected records reach beyond the record: that one counted it."""
        offset = self._place.offset
        row = next((row for row in self._snapshot["nodes"] if row["node"] == node), None)
        if self._topics.partitions(self._place.topic) > 1:
            self._say("counted", "counted-parted")
            return
        gap = self._snapshot["gaps"].get(node)
        if row is None or row["source"] or gap != 0:
            says = "source" if row and row["source"] else "unsure" if gap is None else "gap"
            self._say("counted", f"counted-{says}", node=node, source=row and row["source"], gap=gap)
            return

        def has_counted(record: Any) -> bool:
            weight = _weight(record, node)
            return weight is not None and weight.samples + weight.rejected > offset

        found = self._topics.search(MODEL_WEIGHTS, (since, None), has_counted, 1)
        if not found.records:
            self._say_missing("counted", found)
            return
        weight = read_update(found.records[0].value)
        kept = {name: getattr(weight, name) for name in ("weight", "samples", "rejected")}
        self._say("counted", "counted-rejected" if is_refused else "counted", found.records[0], node=node, **kept)

    def _learned(self, node: str, record: Any) -> None:
        """Find the micro-batch of the training that has read the record: between its ends the update was sent."""
        try:
            if reading_format(self._settings).decode(record.value).label is None:
                self._say("learned", "learned-no-label")
                return
        except BadMessage:
            self._say("learned", "learned-unreadable")
            return
        topic, number, offset = self._place.topic, str(self._place.partition), self._place.offset
        trainings: list[tuple[MicroBatch, ...]] = [
            each for each in self._snapshot["micro_batches"].values() if topic in each[-1].offsets
        ]
        if not trainings:
            self._say("learned", "learned-no-training")
            return
        known = trainings[0]
        first = next((i for i, each in enumerate(known) if each.offsets.get(topic, {}).get(number, 0) > offset), None)
        if first is None:
            self._say("learned", "learned-not-yet")
            return
        batch = known[first]
        if first == 0 and batch.number > 0:
            self._say("learned", "learned-not-known")
            return
        before = known[first - 1] if first else MicroBatch(-1, 0.0, {})

        def is_answer(record: Any) -> bool:
            update = _weight(record, node)
            return isinstance(update, ModelUpdate) and update.num_examples > 0

        since = max(int(before.finished_at * 1000) + 1, record.timestamp - SLACK_MS)
        times = since, int(batch.finished_at * 1000)
        found = self._topics.search(MODEL_WEIGHTS, times, is_answer, batch.number - before.number)
        if not found.records:
            self._say("learned", "learned-nothing" if found.is_whole else "learned-not-found")
            return
        if batch.number == before.number + 1:
            sure = found.records[0]
        else:
            begin, end = (each.offsets.get(topic, {}).get(number, 0) for each in (before, batch))
            sure = _narrowed(found.records, begin, end, offset)
        for each in [sure] if sure else found.records:
            update: Any = read_update(each.value)
            kept = ("round", "num_examples", "base_version")
            says = "learned" if sure else "learned-perhaps"
            self._say("learned", says, each, node=node, **{name: getattr(update, name) for name in kept})
        if sure:
            self._merged(sure)

    def _merged(self, answer: Any) -> None:
        """Find the version that was made of an update, or the end of its round without it."""
        update: Any = read_update(answer.value)
        place = answer.partition, answer.offset

        def is_end(record: Any) -> bool:
            model = _read(read_global, record)
            if not isinstance(model, GlobalModel) or model.run_id != update.run_id:
                return False
            return _has(model, place) or (model.mode == "sync" and model.round > update.round)

        found = self._topics.search(GLOBAL_MODEL, (answer.timestamp - SLACK_MS, None), is_end, 1)
        if not found.records:
            self._say_missing("version", found)
            return
        model: Any = read_global(found.records[0].value)
        says = "version" if _has(model, place) else "version-without"
        values = {"version": model.version, "round": update.round, "updates": len(model.updates)}
        self._say("version", says, found.records[0], strategy=model.strategy, **values)


def _narrowed(answers: list[Any], begin: int, end: int, offset: int) -> Any:
    """Return the answer that has learned a record, of several from one offset to another; None: that is not known.

    It is, where they have learned from as many records as there are between: then each was learned, in their order.
    """
    updates: list[Any] = [read_update(answer.value) for answer in answers]
    reach = list(itertools.accumulate((update.num_examples for update in updates), initial=begin))[1:]
    if not reach or reach[-1] != end:
        return None
    return next(answer for answer, until in zip(answers, reach, strict=True) if until > offset)


def _has(model: GlobalModel, place: tuple[int, int]) -> bool:
    return any(used.place == place for used in model.updates)


def _read(read: Callable[[bytes | None], Any], record: Any) -> Any:
    """Return the message of a record, None if it is none."""
    try:
        return read(record.value)
    except BadMessage:
        return None


def _weight(record: Any, node: str) -> NodeWeight | None:
    """Return a node's message on `model-weights`, None if it is another's."""
    found: NodeWeight | None = _read(read_update, record) if record.key == node.encode() else None
    return found if found and found.node_id == node else None


def read_place(topic: str, partition: str, offset: str) -> Place:
    """Return a place that somebody has typed.

    Raises:
        ValueError: it is none; the text says what is expected.
    """
    if not topic or len(topic) > 249 or topic.startswith("__"):
        msg = f"topic is {topic!r:.100}; expected the name of a topic, such as {SENSOR_DATA}-node-1"
        raise ValueError(msg)
    for name, text in (("partition", partition), ("offset", offset)):
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            msg = f"{name} is {text!r:.100}; expected a whole number of at least 0"
            raise ValueError(msg)
    return Place(topic, int(partition), int(offset))
