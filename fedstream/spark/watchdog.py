"""What ends a driver that cannot go on, so that its runner starts it anew: nothing waits for ever without a word.

Each check runs in a thread of the driver, beside its queries.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from fedstream import last_word
from fedstream.broker import kafka
from fedstream.errors import StackError, StateError
from fedstream.settings import Settings
from fedstream.spark.state import to_begin_anew, write_json

CHECK_SECONDS = 2.0
FIRST_EXECUTOR_SECONDS = 180.0  # on a small machine several jobs start at once
NO_EXECUTOR_SECONDS = 30.0  # one that died is replaced within a few seconds
SET_BACK_SECONDS = 10.0  # so long Spark may wait for its next micro-batch because a clock was set back
ANSWER_SECONDS = 15.0  # a broker that is there tells the ids of topics within some ms

Check = Callable[[], None]


class NoExecutorError(StackError):
    """The driver has had no executor for too long."""


class SetBackError(StackError):
    """The machine's clock was set back."""


def end_process() -> None:
    """End this driver at once; Spark's JVM then ends, too, and says nothing of it after the cause."""
    if SparkContext._active_spark_context:
        SparkContext._active_spark_context.setLogLevel("OFF")
    os._exit(1)


def watch(check: Check, end: Callable[[], None] = end_process, pause: Callable[[float], None] = time.sleep) -> None:
    """Run a check again and again; the first StackError that it raises is told in the log and ends the process.

    Where it cannot read or write, as on a full disk, the next look comes as usual.
    """
    while True:
        pause(CHECK_SECONDS)
        try:
            check()
        except OSError as error:
            logging.getLogger(__name__).warning("a check of this driver could not be made: %s", error)
        except StackError as error:
            print(f"Error: {error.message}", file=sys.stderr, flush=True)
            last_word.keep(error.message)
            end()
            return


def watch_in_background(check: Check) -> None:
    """Start `watch` in a thread that ends with the process."""
    threading.Thread(target=watch, args=(check,), daemon=True).start()


class ExecutorCheck:
    """Notices that a driver has had no executor for too long.

    A master that was started anew without its list of applications, say, has the workers end all executors, and Spark
    then waits for ever for a master that knows this driver.
    """

    def __init__(self, count: Callable[[], int], clock_seconds: Callable[[], float] = time.monotonic) -> None:
        """Take how the executors are counted; the first one may take longer."""
        self._count, self._clock = count, clock_seconds
        self._seen_at, self._longest = clock_seconds(), FIRST_EXECUTOR_SECONDS

    def __call__(self) -> None:
        """Look once.

        Raises:
            NoExecutorError: none has been there for too long.
        """
        now = self._clock()
        if self._count() > 0:
            self._seen_at, self._longest = now, NO_EXECUTOR_SECONDS
        elif now - self._seen_at > self._longest:
            msg = (
                f"no executor for {self._longest:g} s, so this driver ends, and is started anew where make started it. "
                "Either the Spark master or the workers were lost, or they have no free cores or memory: see make ps"
            )
            raise NoExecutorError(msg)


def count_executors(spark: SparkSession) -> int:
    """Return how many executors the driver has now, itself not counted."""
    return len(spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()) - 1


class ClockCheck:
    """Notices that the wall clock was set back.

    Spark waits by it until the time of the next micro-batch: where the clock was set back by an hour, for an hour.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, clock_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the wall clock, and one that nobody sets."""
        self._wall, self._clock = wall, clock_seconds
        self._between = wall() - clock_seconds()

    def __call__(self) -> None:
        """Look once.

        Raises:
            SetBackError: the clock was set back since the last look.
        """
        before, self._between = self._between, self._wall() - self._clock()
        seconds = before - self._between
        if seconds > SET_BACK_SECONDS:
            msg = (
                f"the clock of this machine was set back by {seconds:.0f} s, and Spark would wait as long "
                "for its next micro-batch: this driver ends, and is started anew where make started it"
            )
            raise SetBackError(msg)


class TopicCheck:
    """Notices that a topic was deleted and made anew under its name.

    Offsets and counts are of the old one then. Spark compares offsets only: once the new topic has more records than
    were read of the old one, it would go on in the middle. So each topic's id is kept beside the checkpoint.
    """

    def __init__(self, folder: Path, find: Callable[[], Mapping[str, str]]) -> None:
        """Take the job's folder and how the present topics' ids are found."""
        self._path, self._find = folder / "topics.json", find
        self._known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __call__(self) -> None:
        """Look once, and remember topics that were not there before.

        Raises:
            StateError: a topic has another id than before.
        """
        present = self._find()
        for name, topic_id in present.items():
            known = self._known.get(name, topic_id)
            if known != topic_id:
                raise StateError(_made_anew(name, known, topic_id, self._path.parent))
        if not present.keys() <= self._known.keys():
            self._known |= present
            write_json(self._path, self._known)


def _made_anew(topic: str, known: str, present: str, folder: Path) -> str:
    return (
        f"topic {topic} was made anew: this job has read the one with id {known}, and now it has id {present}. "
        "What the old one held and this job had not read yet is lost. The job stops, since its offsets and counts are "
        "those of the old topic. To begin with the new one's first record, with counts from 0, while all other jobs go "
        f"on: {to_begin_anew(folder)}"
    )


class TopicFinder:
    """Finds the ids of the topics that are there now, by a client that is replaced once it has not answered.

    It may wait without an end for a request under which its broker has died.
    """

    def __init__(self, settings: Settings, topics: str) -> None:
        """Connect; `topics` is `a,b`, or a pattern with `*`.

        Raises:
            KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
        """
        self._settings, self._topics = settings, topics
        self._admin: KafkaAdminClient | None = kafka.connect_admin(settings)

    def __call__(self) -> dict[str, str]:
        """Return the ids by name.

        Raises:
            kafka.errors.KafkaError, KafkaUnavailableError: the broker is away.
        """
        admin = self._admin = self._admin or kafka.connect_admin(self._settings)
        try:
            return kafka.within(ANSWER_SECONDS, lambda: kafka.topic_ids(admin, self._topics))
        except KafkaTimeoutError:
            self._admin = None
            raise


def guard_topics(settings: Settings, topics: str, folder: Path) -> Check:
    """Refuse topics (`a,b`, or a pattern with `*`) that were made anew since a job with this folder has read them.

    This is looked at now, and from now on while the driver runs. A job that counts calls what is returned, too, between
    reading a micro-batch and counting it.

    Raises:
        StateError: a topic was made anew.
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    check = TopicCheck(folder, TopicFinder(settings, topics))
    check()

    def check_again() -> None:
        # Where the broker is away, its topics are looked at when it is back.
        with suppress(KafkaError, kafka.KafkaUnavailableError):
            check()

    watch_in_background(check_again)
    return check_again
