"""How far each query of a driver has come, and how far it is behind its topics; a driver that stands still ends.

A thread of the driver looks every two seconds, and writes what it sees to a file, CHECKPOINT_DIR/running/JOB.json.
`make ps`, `make doctor` and the health checks read that file, also when the driver is dead.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from pyspark import SparkContext
from pyspark.sql.streaming.query import StreamingQuery

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark.state import write_json

Offsets = dict[str, dict[str, int]]  # topic: partition: offset of the next record
_written: set[Path] = set()  # the files of this driver


class StalledError(StackError):
    """A query has finished no micro-batch for too long, though records wait on its topics."""


class Done(NamedTuple):
    """The last micro-batch that a query has finished: its number, when (s since 1970), and where it ended."""

    micro_batch: int
    at: float
    offsets: Offsets
    seconds: float  # that it took, from its plan on
    lines: int  # that were read of a socket, which has no topic


class QueryProgress(msgspec.Struct):
    """What the file says of a query."""

    name: str
    may_wait: bool  # it waits for something beside records, such as a round
    micro_batch: int = -1  # the last finished one
    finished_at: float = 0.0  # s since 1970
    behind: int | None = None  # records that wait on its topics; None: not known, such as of a socket
    moved_at: float = 0.0  # when it was last seen to go on, or to have nothing to do
    offsets: Offsets = {}
    seconds: float = 0.0  # that this micro-batch took
    lines: int = 0  # that were read of a socket


class DriverProgress(msgspec.Struct):
    """The file."""

    job: str
    at: float  # when it was written, s since 1970
    pause_seconds: float  # a query may be so long between two micro-batches, as real-time mode is
    queries: list[QueryProgress]


def last_done(checkpoint: Path) -> Done | None:
    """Return the last micro-batch that Spark has finished by a query's checkpoint; None before the first."""
    try:
        number = max(int(path.name) for path in (checkpoint / "commits").iterdir() if path.name.isdecimal())
        lines = (checkpoint / "offsets" / str(number)).read_text().splitlines()[2:]  # behind its version and settings
        at = (checkpoint / "commits" / str(number)).stat().st_mtime
        seconds = at - (checkpoint / "offsets" / str(number)).stat().st_mtime
    except (OSError, ValueError):  # none yet, or just deleted: there is a newer one
        return None
    sources = [json.loads(line) for line in lines]
    offsets = {topic: ends for each in sources if isinstance(each, dict) for topic, ends in each.items()}
    return Done(number, at, offsets, seconds, sum(each + 1 for each in sources if isinstance(each, int)))


def has_begun(checkpoint: Path) -> bool:
    """Return whether Spark has planned a first micro-batch."""
    return any((checkpoint / "offsets").glob("[0-9]*"))


class ProgressCheck:
    """Looks at a driver's queries, writes down how far they are, and notices one that stands still."""

    def __init__(
        self,
        progress: DriverProgress,
        checkpoints: Mapping[str, Path],
        ends_of: Callable[[Offsets], Offsets | None],
        stall_seconds: float,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (time.time, time.monotonic),
    ) -> None:
        """Take the folders of the queries, the one that may not wait first, and how topics' ends are found.

        The latter gives None where they are not known now. `clocks` are the wall's, and one that nobody sets.
        """
        self.progress, self._checkpoints, self._ends_of = progress, checkpoints, ends_of
        self._stall_seconds, (self._wall, self._steady) = stall_seconds, clocks
        progress.queries = [QueryProgress(name, i > 0, moved_at=self._wall()) for i, name in enumerate(checkpoints)]
        self._moved = dict.fromkeys(checkpoints, self._steady())

    def look(self) -> DriverProgress:
        """Return the progress of now.

        Raises:
            StalledError: a query stands still.
        """
        now, steady = self._wall(), self._steady()
        self.progress.at = now
        for query in self.progress.queries:
            done = last_done(self._checkpoints[query.name])
            if done is None:
                is_working = has_begun(self._checkpoints[query.name])
            else:
                is_working = done.micro_batch == query.micro_batch
                query.micro_batch, query.finished_at, query.offsets, query.seconds, query.lines = done
                query.behind = _behind(done.offsets, self._ends_of(done.offsets))
                is_working &= bool(query.behind)
            if query.may_wait or not is_working:
                query.moved_at, self._moved[query.name] = now, steady
            longest = self._stall_seconds + self.progress.pause_seconds
            if steady - self._moved[query.name] > longest:
                _print_stacks()
                raise StalledError(
                    f"query {query.name} has finished no micro-batch for {longest:g} s, though it has work "
                    f"({query.behind or 'its first'} records); the last one was number {query.micro_batch}. This "
                    "driver ends, and is started anew where make started it. If that happens again: make doctor, and "
                    "a larger STALL_TIMEOUT_SECONDS where a micro-batch takes that long"
                )
        return self.progress


def _print_stacks() -> None:
    """Write to the log where each thread is that has to do with Spark or Kafka: one of them holds the query up."""
    for frame in sys._current_frames().values():
        traceback.print_stack(frame)
        print(file=sys.stderr)
    context = SparkContext._active_spark_context
    if context is None or context.uiWebUrl is None:
        return
    page = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/executors"
    try:
        for executor in _get(page):  # one of them is the driver
            for thread in _get(f"{page}/{executor['id']}/threads"):
                frames = "".join(f"  {frame.strip()}\n" for frame in thread["stackTrace"]["elems"])
                if "org.apache." in frames:
                    print(f"{executor['id']}: {thread['threadName']}\n{frames}", file=sys.stderr)
    except Exception as error:  # whatever fails here, the driver has to be ended
        print(f"no stacks of an executor: {type(error).__name__}: {error}", file=sys.stderr)


def _get(url: str) -> Any:
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with directly.open(url, timeout=5) as response:
        return json.load(response)


def _behind(offsets: Offsets, ends: Offsets | None) -> int | None:
    if not offsets or ends is None:
        return None
    known = [(ends.get(topic, {}).get(number), at) for topic, each in offsets.items() for number, at in each.items()]
    return sum(max(end - at, 0) for end, at in known if end is not None)


def ends_of_topics(settings: Settings) -> Callable[[Offsets], Offsets | None]:
    """Return a function that gives the ends of the partitions of some offsets, None while the broker is away."""
    consumer: Any = None

    def ends_of(offsets: Offsets) -> Offsets | None:
        nonlocal consumer
        try:
            consumer = consumer or kafka.connect_consumer(settings)
            partitions = [TopicPartition(topic, int(number)) for topic, each in offsets.items() for number in each]
            ends: Offsets = {}
            for partition, end in kafka.ends_of(consumer, partitions).items():
                ends.setdefault(partition.topic, {})[str(partition.partition)] = end
        except (KafkaError, StackError):
            return None
        return ends

    return ends_of


def check_of(queries: list[StreamingQuery], settings: Settings, pause_seconds: float) -> Callable[[], None]:
    """Return the check of a driver's queries: it writes down how far they are, and raises where one stands still."""
    job = os.environ.get("JOB") or queries[0].name
    path = _file(settings, job)
    checkpoints = {query.name: _checkpoint_of(query) for query in queries}
    progress = DriverProgress(job, 0.0, pause_seconds, [])
    check = ProgressCheck(progress, checkpoints, ends_of_topics(settings), settings.stall_timeout_seconds)

    def look() -> None:
        if queries[0].isActive:
            write_json(path, msgspec.to_builtins(check.look()))
            _written.add(path)

    return look


def tell_stopped() -> None:
    """Mark this driver, which somebody stops by hand, as the start script marks a job."""
    for path in _written:
        with suppress(FileNotFoundError):
            path.replace(path.with_suffix(".stopped"))


def forget(settings: Settings) -> None:
    """Remove what an earlier driver of this job has said."""
    if job := os.environ.get("JOB"):
        for path in (_file(settings, job), _file(settings, job).with_suffix(".stopped")):
            path.unlink(missing_ok=True)


def _file(settings: Settings, job: str) -> Path:
    return settings.checkpoint_dir / "running" / f"{job}.json"


def _checkpoint_of(query: StreamingQuery) -> Path:
    root = str(query._jsq.streamingQuery().resolvedCheckpointRoot())
    return Path(root.removeprefix("file:"))
