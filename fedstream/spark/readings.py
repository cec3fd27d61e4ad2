"""Readings on the executors: Arrow batches of a topic's records in, each node's sums or its readings out.

One loop over the records tells good from bad: what `ReadingFormat.decode` refuses goes to `dead-letter` from here.
"""

from __future__ import annotations

import functools
import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from msgspec.structs import asdict

from fedstream.broker.position import now_ms
from fedstream.errors import BadMessage
from fedstream.messages.dead_letters import DeadLetter, dead_letter
from fedstream.messages.readings import Reading, reading_format
from fedstream.messages.topics import node_of_topic
from fedstream.messages.weights import RunningSums, sums_of
from fedstream.settings import Settings

RECORD = ("value", "topic", "partition", "offset")  # what is read of a record

SUMS = pa.schema(
    {"node": pa.int32(), "count": pa.int64(), "rejected": pa.int64()}
    | {"sums": pa.list_(pa.float64()), "squares": pa.list_(pa.float64())}
)
LABELLED = pa.schema(
    {"node": pa.int32(), "partition": pa.int32(), "offset": pa.int64()}
    | {"values": pa.list_(pa.float64()), "label": pa.int32()}
)

MOST_LETTERS, MOST_LETTER_BYTES = 1000, 8 * 2**20  # that an executor keeps before it sends them

Reject = Callable[[list[DeadLetter]], None]


@functools.cache
def freeze_imports() -> None:
    """Take what a Python worker has imported out of its garbage collection, once.

    Spark starts a collection after each task, and going through what stays anyway takes 60 ms of CPU time.
    """
    gc.freeze()


@dataclass(frozen=True)
class NodeReadings:
    """What an executor needs to read nodes' records.

    `sensors` says whose the sensors of a shared topic are; without it a record's topic tells its node. Records of
    nobody are left alone. `reject` takes the dead letters; it may be called twice for a micro-batch that is repeated.
    """

    settings: Settings
    sensors: Mapping[str, int] | None
    reject: Reject

    def sum_up(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Reduce records (RECORD) to a row of SUMS for each node; the bad ones are rejected."""
        freeze_imports()
        form = reading_format(self.settings)
        zeros = (0.0,) * len(form.features)
        totals: dict[int, RunningSums] = defaultdict(lambda: RunningSums(0, zeros, zeros))
        for batch in batches:
            readings: dict[int, list[Reading]] = defaultdict(list)
            letters: list[DeadLetter] = []
            size = 0
            for node, found, record in self._read(batch):
                if isinstance(found, Reading):
                    readings[node].append(found)
                    continue
                totals[node] += RunningSums(rejected=1)
                letters.append(dead_letter(record[0], str(found), record[1:], now_ms(), f"fog-{node}"))
                size += len(letters[-1].value or "")
                if len(letters) >= MOST_LETTERS or size >= MOST_LETTER_BYTES:
                    self.reject(letters)
                    letters, size = [], 0
            if letters:
                self.reject(letters)
            for node, own in readings.items():
                totals[node] += sums_of(form.table(own))
        rows = [{"node": node} | asdict(own) for node, own in sorted(totals.items())]
        yield pa.RecordBatch.from_pylist(rows, schema=SUMS)

    def labelled(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn records (RECORD) into rows of LABELLED: what can be learned from. `sum_up` tells what is bad."""
        freeze_imports()
        for batch in batches:
            rows = [
                (node, record[2], record[3], found.values, found.label)
                for node, found, record in self._read(batch)
                if isinstance(found, Reading) and found.label is not None
            ]
            columns = list(zip(*rows, strict=True)) or [()] * len(LABELLED)
            yield pa.record_batch(
                [pa.array(column, field.type) for column, field in zip(columns, LABELLED, strict=True)], schema=LABELLED
            )

    def _read(self, batch: pa.RecordBatch) -> Iterator[tuple[int, Reading | BadMessage, tuple[Any, ...]]]:
        """Yield for each record of a node of ours: the node, the reading or why it is none, and the record."""
        decode = reading_format(self.settings).decode
        topics = batch.column("topic").to_pylist()
        node_of = {topic: node_of_topic(topic) for topic in set(topics)} if self.sensors is None else None
        records = zip(*(batch.column(name).to_pylist() for name in RECORD), strict=True)
        for record in records:
            found: Reading | BadMessage
            try:
                found = decode(record[0])
            except BadMessage as error:
                found = error
            node = node_of[record[1]] if node_of is not None else self._node_of_sensor(found, record[0])
            if node is not None:
                yield node, found, record

    def _node_of_sensor(self, found: Reading | BadMessage, value: bytes | None) -> int | None:
        """Return whose a record of a shared topic is.

        One that names no sensor concerns node 1, so that it is kept in `dead-letter` once, and not once a node.
        """
        assert self.sensors is not None
        if isinstance(found, Reading):
            return self.sensors.get(found.sensor_id)
        name = reading_format(self.settings).sensor_of(value)
        return self.sensors.get(name) if name is not None else 1 if 1 in self.sensors.values() else None
