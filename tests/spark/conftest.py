"""Spark tests: one local session; files stand for topics, so that the jobs' own queries run without Kafka."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

RECORD_DDL = "value BINARY, topic STRING, partition INT, offset BIGINT"


@pytest.fixture(scope="session")
def spark(tmp_path_factory) -> Iterator[SparkSession]:
    """Return the session, which takes nothing over from a stack on this machine."""
    for name in ("SPARK_CONF_DIR", "SPARK_HOME", "MASTER", "PYSPARK_SUBMIT_ARGS"):
        os.environ.pop(name, None)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    session = (
        SparkSession.builder.master("local[2]")
        .appName("tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.extraJavaOptions", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")  # the failures that tests cause on purpose would fill pages
    yield session
    session.stop()


class Topic:
    """A folder that stands for a topic of one partition; what is appended at once becomes one micro-batch."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make an empty topic."""
        folder.mkdir()
        self.folder = folder
        self.name = name
        self.files = 0
        self.offset = 0

    def append(self, *values: bytes | None) -> None:
        """Append records with these values."""
        records = []
        for value in values:
            text = None if value is None else base64.b64encode(value).decode()  # BINARY in Spark's JSON files
            records.append({"value": text, "topic": self.name, "partition": 0, "offset": self.offset})
            self.offset += 1
        self.append_lines(map(json.dumps, records))

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


@pytest.fixture(scope="session")
def run_driver() -> Callable[[DataStreamWriter, Path], StreamingQuery]:
    """Return a function that runs a query until all input is processed, then ends it like its driver would."""

    def run(writer: DataStreamWriter, folder: Path) -> StreamingQuery:
        query = writer.start()
        try:
            query.processAllAvailable()
        finally:
            query.stop()
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
