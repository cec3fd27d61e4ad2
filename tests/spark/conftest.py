"""Spark tests: one local session; files stand for topics, so that the jobs' own queries run without Kafka."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.messages.door import encode
from fedstream.messages.topics import DEAD_LETTER
from tests.conftest import ROOT

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"
DRIVER_SECONDS = 120.0  # a driver that is not done by then is stopped, and its test fails


def product_options() -> dict[str, str]:
    """Return what the jobs' queries run with: the options of SQL, Python workers and files in spark-defaults.conf."""
    lines = (ROOT / "spark_cluster" / "spark-defaults.conf").read_text().splitlines()
    options = dict(line.split(maxsplit=1) for line in lines if line.startswith("spark."))
    return {
        name: value
        for name, value in options.items()
        if name.startswith(("spark.sql.", "spark.python.", "spark.hadoop."))
    }


@pytest.fixture(scope="session")
def spark(tmp_path_factory) -> Iterator[SparkSession]:
    """Return the session, which takes nothing over from a stack on this machine."""
    for name in ("SPARK_CONF_DIR", "SPARK_HOME", "MASTER", "PYSPARK_SUBMIT_ARGS"):
        os.environ.pop(name, None)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the executors train with the same packages
    own = {
        "spark.ui.enabled": "false",
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "spark.sql.streaming.stopTimeout": "30s",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }
    builder = SparkSession.builder.master("local[2]").appName("tests").config(map=product_options() | own)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")  # the failures that tests cause on purpose would fill pages
    yield session
    session.stop()


class Topic:
    """A folder that stands for topics; what is appended at once becomes one micro-batch."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make an empty topic; `name` and partition 0 are where records go that name no other place."""
        folder.mkdir()
        self.folder = folder
        self.name = name
        self.files = 0
        self.offsets: Counter[tuple[str, int]] = Counter()

    def append(self, *values: bytes | None) -> None:
        """Append records with these values."""
        self.append_records((self.name, 0, value) for value in values)

    def append_records(self, records: Iterable[tuple[str, int, bytes | None]]) -> None:
        """Append records, each (topic, partition, value)."""
        lines = []
        for name, partition, value in records:
            text = None if value is None else base64.b64encode(value).decode()  # BINARY in Spark's JSON files
            offset = self.offsets[name, partition]
            lines.append(json.dumps({"value": text, "topic": name, "partition": partition, "offset": offset}))
            self.offsets[name, partition] += 1
        self.append_lines(lines)

    def append_lines(self, lines: Iterable[str]) -> None:
        """Append a file of JSON lines; it appears at once, later than those before it."""
        hidden = self.folder / f".{self.files}"
        hidden.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.utime(hidden, times=(1.7e9 + self.files, 1.7e9 + self.files))
        hidden.rename(self.folder / f"{self.files:06}.json")
        self.files += 1

    def read(self, spark: SparkSession, ddl: str = RECORD_DDL) -> DataFrame:
        """Return the stream of the topic's records."""
        return spark.readStream.schema(ddl).option("maxFilesPerTrigger", 1).json(str(self.folder))


@pytest.fixture
def topic(tmp_path) -> Topic:
    """Return an empty topic."""
    return Topic(tmp_path / "topic", "some-topic")


class Recorder:
    """What a driver has published and rejected, and the step at which it dies."""

    def __init__(self) -> None:
        """Keep nothing yet, and let no driver die."""
        self.published: list[tuple[Any, ...]] = []
        self.rejected: list[Row] = []
        self._steps_left: Counter[str] = Counter()

    def publish(self, *outgoing: tuple[Any, ...]) -> None:
        """Keep messages, the last of each one's parts, as they would be read from their topics."""
        for parts in outgoing:
            message = json.loads(encode(parts[-1]))
            if parts[0] == DEAD_LETTER:
                value = None if message["value"] is None else base64.b64decode(message["value"])
                self.rejected.append(Row(**message | {"value": value}))
                self.step("in dead_letters")
                continue
            self.step("before publish")
            self.published.append((*parts[:-1], message))
            self.step("after publish")

    def dead_letters(self, rejected: DataFrame) -> None:
        """Keep rejected records; the driver may die afterwards, at the worst moment."""
        self.rejected += sorted(rejected.collect(), key=lambda row: (row.topic, row.partition, row.offset))
        self.step("in dead_letters")

    def step(self, where: str) -> None:
        """Die if it is time."""
        if self._steps_left[where]:
            self._steps_left[where] -= 1
            if not self._steps_left[where]:
                raise ConnectionError(f"the driver dies {where}")

    @contextmanager
    def dies(self, where: str, number: int = 1) -> Iterator[None]:
        """Expect that the driver that runs in this block dies at such a step, the first one or a later one."""
        self._steps_left[where] = number
        with pytest.raises(StreamingQueryException, match=f"the driver dies {where}"):
            yield


@pytest.fixture
def recorder() -> Recorder:
    """Return a recorder that has seen no driver."""
    return Recorder()


@pytest.fixture(scope="session")
def run_driver() -> Callable[[DataStreamWriter, Path], StreamingQuery]:
    """Return a function that runs a query until all input is processed, then ends it like its driver would."""

    def run(writer: DataStreamWriter, folder: Path) -> StreamingQuery:
        try:
            query = writer.trigger(processingTime="0 seconds").start()  # a job's pace is for its latency only
            alarm = threading.Timer(DRIVER_SECONDS, query.stop)
            alarm.start()
            try:
                query.processAllAvailable()
                assert query.isActive, f"not done within {DRIVER_SECONDS:g} s"
            finally:
                alarm.cancel()
                query.stop()
        finally:
            release_lock(folder / "state.lock")
        return query

    return run


def release_lock(path: Path) -> None:
    """Unlock a file that this process has locked, as its end would."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if descriptor.resolve() == path.resolve():
                fcntl.flock(int(descriptor.name), fcntl.LOCK_UN)


@pytest.fixture(scope="session")
def count_jobs(spark) -> Callable[[StreamingQuery], int]:
    """Return a function that counts the Spark jobs that a query has run."""

    def count(query: StreamingQuery) -> int:
        spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()  # until then the count may miss a job
        return len(spark.sparkContext.statusTracker().getJobIdsForGroup(str(query.runId)))

    return count
