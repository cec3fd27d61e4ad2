"""The Spark side that every job shares: session, Kafka source, running a query."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream import last_word
from fedstream.broker import kafka
from fedstream.broker.position import Position, start_options
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark import oversized, progress, skips, watchdog

_causes: dict[str, StackError] = {}  # of the queries of this driver that failed, by name
_folders: dict[str, Path] = {}  # of its queries


class SparkUnavailableError(StackError):
    """No Spark master answered in time; the text names the master and the time."""


def start_session(app_name: str, settings: Settings) -> SparkSession:
    """Return the session of a job; master, cores and memory come from spark-submit and spark-defaults.conf.

    A driver that has no executor for too long ends, and so does one whose clock is set back.

    Raises:
        SparkUnavailableError: the master did not answer within `wait_timeout_seconds`.
    """
    progress.forget(settings)
    SparkContext._ensure_initialized()  # connects to spark-submit's JVM, which knows the master it was given
    _wait_for_master(SparkConf().get("spark.master") or "local", settings.wait_timeout_seconds)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(levelname)s] %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    # It logs each attempt to reach a broker that is away, many a second; who waits for an answer tells it once.
    logging.getLogger("kafka.net").setLevel(logging.CRITICAL)
    spark = SparkSession.builder.appName(app_name).getOrCreate()
    watchdog.watch_in_background(watchdog.ClockCheck())
    if str(spark.sparkContext.master).startswith("spark://"):
        watchdog.watch_in_background(watchdog.ExecutorCheck(lambda: watchdog.count_executors(spark)))
    return spark


def _wait_for_master(master: str, timeout_seconds: float) -> None:
    if not master.startswith("spark://"):
        return
    host, _, port = master.removeprefix("spark://").partition(":")
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                msg = (
                    f"no Spark master answered at {master} within {timeout_seconds:g} s ({error}); "
                    "is the stack up (`make ps`, `make doctor`)? Else set MASTER or --master."
                )
                raise SparkUnavailableError(msg) from error
            time.sleep(0.5)


def read_topic(
    spark: SparkSession,
    settings: Settings,
    topics: str,
    max_records: int | None,
    start: Position | None = None,
    **options: str,
) -> DataFrame:
    """Return the stream of topics' records: (key, value, topic, partition, offset, timestamp, timestampType).

    Without a checkpoint it starts from the position, or from the first record.
    """
    source = kafka.source_options(settings, topics, max_records) | start_options(settings, topics, start) | options
    return spark.readStream.format("kafka").options(**source).load()


def in_parts(batch: DataFrame, most_bytes: int) -> Iterator[list[Row]]:
    """Yield a micro-batch's records in lists of at most so many bytes of values: one list, most often."""
    part: list[Row] = []
    size = 0
    for record in batch.toLocalIterator():
        length = len(record.value or "")
        if part and size + length > most_bytes:
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    yield part


def foreach_batch(
    batches: DataFrame, name: str, handle: Callable[[DataFrame, int], None], folder: Path, interval_ms: int
) -> DataStreamWriter:
    """Return the unstarted query that hands each micro-batch to a function, with its checkpoint below a folder.

    Records that `make skip` has named are passed over.
    """
    skips.pass_over(folder)
    _folders[name] = folder

    def handle_or_tell(batch: DataFrame, batch_id: int) -> None:
        try:
            handle(batch, batch_id)
        except StackError as error:
            _causes[name] = error  # Spark only keeps its text, within a trace
            raise

    return (
        batches.writeStream.queryName(name)
        .foreachBatch(handle_or_tell)
        .option("checkpointLocation", str(folder / "spark"))
        .trigger(processingTime=f"{interval_ms} milliseconds")
    )


def start_queries(settings: Settings, *writers: DataStreamWriter, pause_seconds: float = 0.0) -> list[StreamingQuery]:
    """Start the queries of a driver, which ends if the first one stands still while records wait for it.

    The other queries may wait for something else, such as a round. `pause_seconds` is how long a query is silent by
    its mode.
    """
    queries = [writer.start() for writer in writers]
    watchdog.watch_in_background(progress.check_of(queries, settings, pause_seconds))
    return queries


def run_query(settings: Settings, *writers: DataStreamWriter, ready: str, pause_seconds: float = 0.0) -> None:
    """Start queries (`start_queries`), say that they run, and block until one of them ends.

    Raises:
        StackError: a query failed.
    """
    start_queries(settings, *writers, pause_seconds=pause_seconds)
    print(ready, flush=True)
    with failures_told(settings):
        SparkSession.active().streams.awaitAnyTermination()


@contextmanager
def failures_told(settings: Settings) -> Iterator[None]:
    """Tell why a query failed within this block in one paragraph; Spark has put the whole trace into the log.

    A driver that somebody stops by Ctrl-C is marked so.

    Raises:
        StackError: a query failed.
    """
    try:
        yield
    except KeyboardInterrupt:
        progress.tell_stopped()
        raise
    except StreamingQueryException as error:
        if told := next(iter(_causes.values()), None):
            raise told from error
        text = str(error)
        raise StackError(skips.unreadable(text, settings) or _oversized(text, settings) or cause_of(text)) from error


def _oversized(text: str, settings: Settings) -> str:
    """Return what to do if a query has died of too little memory, as for a record that is too long, else nothing."""
    if not oversized.has_died(text):
        return ""
    cause = f"more than an executor's memory (EXECUTOR_HEAP); {cause_of(text)}"
    if found := oversized.find(settings, [place for folder in _folders.values() for place in skips.unread(folder)]):
        return skips.cannot_read(found, f"it unpacks to {cause}")
    job = os.environ.get("JOB", "JOB")
    behind = "" if skips.counts(job) else f", or go on behind what it reads: make reset S={job} FROM=end"
    return f"a task needs {cause}. Raise EXECUTOR_HEAP{behind}"


def end_for_good(error: StackError) -> None:
    """Tell why a driver ends and, if a runner would start it anew, hold its place without doing anything.

    Compose starts a container anew whatever its exit code. `make ps` and the health check tell the cause.
    """
    if not os.environ.get("JOB"):
        return  # started by hand: nobody starts it anew
    print(f"Error: {error.message}", file=sys.stderr, flush=True)
    last_word.keep(error.message)
    SparkSession.active().stop()
    os.execvp("sleep", ["sleep", "infinity"])


def cause_of(text: str) -> str:
    r"""Return why a query failed, by the text of Spark's error: its first line, or the last one of a Python trace.

    Of a Python trace that only says that something in Java has failed, it is what Java said.

    >>> cause_of("[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: Topic t was lost\n=== Plan ===")
    'Topic t was lost'
    """
    python = re.findall(r"^(?:\w+\.)*([A-Z]\w+: .+)$", text.partition("\n=== ")[0], re.MULTILINE)
    java = re.findall(r"^: (?:[\w.$]+: )?(.+)$", text, re.MULTILINE)
    if python and python[-1].startswith("Py4JJavaError") and java:
        return str(java[-1])
    first = text.strip().split("\n", 1)[0].rpartition("terminated with exception: ")[2]
    return python[-1] if "Python" in first and python else first
