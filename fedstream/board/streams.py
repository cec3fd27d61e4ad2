"""How fast topics grow, and how far each query is behind them, also while its driver is dead.

The ends come from the broker, the offsets from the files in which each driver says how far it is (`stack.jobs`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from fedstream.last_word import LastWord
from fedstream.stack import jobs

Offsets = dict[str, dict[str, int]]  # topic: partition: offset of the next record
Row = dict[str, Any]

RATE_SECONDS = 10.0
MOST_ENDS = 600  # of a partition: ten minutes
MOST_BATCHES = 100  # micro-batches of a query of which the durations are kept
MOST_TRAININGS = 500  # micro-batches of a training of which the ends are kept
SILENT_SECONDS = 10.0  # a driver looks every two seconds
FORGET_SECONDS = 3600.0  # a job that was silent so long was stopped on purpose
LATELY_SECONDS = 60.0  # an error is shown so long, though the job is well again
ENDING_SECONDS = 5.0  # a driver that ends may look once more after its last word


class Growth:
    """A number that grows, such as the end of a partition: how fast, and since when it is above another."""

    def __init__(self) -> None:
        """Begin without a look at it."""
        self._looks: deque[tuple[float, int]] = deque(maxlen=MOST_ENDS)

    @property
    def value(self) -> int:
        """The number now."""
        return self._looks[-1][1] if self._looks else 0

    def take(self, at: float, value: int) -> None:
        """Take what it is; a smaller one than before is of something made anew."""
        if value < self.value:
            self._looks.clear()
        self._looks.append((at, value))

    def rate(self, now: float) -> float:
        """Return by how much it grew a second, in the last ten seconds."""
        first = None
        for look in reversed(self._looks):
            if look[0] < now - RATE_SECONDS:
                break
            first = look
        if first is None or first[0] >= self._looks[-1][0]:
            return 0.0
        last = self._looks[-1]
        return (last[1] - first[1]) / (last[0] - first[0])

    def seconds_above(self, value: int, now: float) -> float:
        """Return for how long it has been above a value; 0 if it is not."""
        since = now
        for at, each in reversed(self._looks):
            if each <= value:
                break
            since = at
        return now - since


class MicroBatch(NamedTuple):
    """The end of a micro-batch."""

    number: int
    finished_at: float  # s since 1970
    offsets: Offsets


class Query:
    """What is known of a query."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.said: Row = {}
        self.taken = Growth()
        self.durations: deque[float] = deque(maxlen=MOST_BATCHES)
        self.trainings: tuple[MicroBatch, ...] = ()  # never changed: what was handed out stays

    def take(self, at: float, said: Row, is_real_time: bool) -> None:
        """Take what the driver's file says; a micro-batch of real-time mode is only the time between two commits."""
        is_new = said["micro_batch"] != self.said.get("micro_batch") and said["micro_batch"] >= 0
        if is_new and not is_real_time:
            self.durations.append(said.get("seconds", 0.0))
        if is_new and said["may_wait"]:
            # A number that is not the next one is of a query that has begun anew.
            known = self.trainings if said["micro_batch"] > self.said.get("micro_batch", -1) else ()
            batch = MicroBatch(said["micro_batch"], said["finished_at"], said["offsets"])
            self.trainings = (*known, batch)[-MOST_TRAININGS:]
        self.said = said
        records = sum(sum(each.values()) for each in said["offsets"].values()) or said.get("lines", 0)
        if said["micro_batch"] >= 0:
            self.taken.take(at, records)


class Streams:
    """The topics and the queries."""

    def __init__(self) -> None:
        """Begin with none."""
        self.ends: Offsets = {}
        self._topics: dict[str, Growth] = {}
        self._partitions: dict[tuple[str, str], Growth] = {}
        self._said: dict[str, jobs.Progress] = {}  # by job, also of those that say nothing any more
        self._present: set[str] = set()
        self._queries: dict[str, Query] = {}
        self._words: dict[str, LastWord] = {}  # of jobs that have ended with an error
        self._ended: set[str] = set()  # those that have not begun anew since

    def take_ends(self, at: float, ends: Offsets) -> None:
        """Take the ends of all topics."""
        self.ends = ends
        for topic, each in ends.items():
            self._topics.setdefault(topic, Growth()).take(at, sum(each.values()))
            for partition, end in each.items():
                self._partitions.setdefault((topic, partition), Growth()).take(at, end)

    def take_progress(self, at: float, said: Sequence[jobs.Progress]) -> None:
        """Take what the drivers' files say."""
        self._present = {each["job"] for each in said}
        for progress in said:
            self._said[progress["job"]] = progress
            for query in progress["queries"]:
                self._queries.setdefault(_name(progress["job"], query["name"]), Query()).take(
                    at, query, progress["pause_seconds"] > 0
                )
        self.take_stopped([job for job, each in self._said.items() if at - each["at"] > FORGET_SECONDS])

    def take_stopped(self, stopped: Collection[str]) -> None:
        """Forget what jobs have said that were stopped on purpose."""
        for job in self._said.keys() & stopped:
            del self._said[job]
            for name in [name for name in self._queries if name.partition("/")[0] == job]:
                del self._queries[name]

    def take_last_words(self, at: float, words: Mapping[str, LastWord]) -> None:
        """Take what jobs said when they ended with an error; of one that has begun anew it is kept for a while."""
        self._ended = set(words)
        self._words = {
            job: word
            for job, word in {**self._words, **words}.items()
            if at - word.at <= (FORGET_SECONDS if job in words else LATELY_SECONDS)
        }

    def rate(self, topic: str, now: float) -> float:
        """Return how many records a second come onto a topic."""
        return self._topics[topic].rate(now) if topic in self._topics else 0.0

    def counted(self) -> dict[str, MicroBatch]:
        """Return the last known micro-batch of the fog's query that counts the readings of a topic, by the topic."""
        found = (query.said for query in self._queries.values() if query.said["name"].startswith("fog-"))
        return {
            topic: MicroBatch(said["micro_batch"], said["finished_at"], said["offsets"])
            for said in found
            for topic in said["offsets"]
        }

    def trainings(self) -> dict[str, tuple[MicroBatch, ...]]:
        """Return the known micro-batches of the queries that train, by their names."""
        return {name: query.trainings for name, query in self._queries.items() if query.trainings}

    def topic_rows(self, now: float) -> list[Row]:
        """Return a row for each topic."""
        return [
            {"topic": name, "partitions": len(self.ends[name]), "records": sum(self.ends[name].values())}
            | {"per_second": self.rate(name, now)}
            for name in sorted(self.ends)
        ]

    def query_rows(self, now: float) -> list[Row]:
        """Return a row for each query, with the lag in records, by topic, and in seconds."""
        return [
            self._query_row(progress, _name(job, said["name"]), now)
            for job, progress in sorted(self._said.items(), key=lambda item: (len(item[0]), item[0]))
            for said in progress["queries"]
        ]

    def _query_row(self, progress: jobs.Progress, name: str, now: float) -> Row:
        query = self._queries[name]
        said = query.said
        lag: dict[str, int] = {}
        seconds = 0.0
        for topic, offsets in said["offsets"].items():
            ends = self.ends.get(topic, {})
            lag[topic] = sum(max(end - offsets.get(number, 0), 0) for number, end in ends.items())
            above = [
                self._partitions[topic, number].seconds_above(offsets.get(number, 0), now)
                for number, end in ends.items()
                if end > offsets.get(number, 0)
            ]
            seconds = max([seconds, *above])
        return {
            "query": name,
            "job": progress["job"],
            "may_wait": said["may_wait"],
            "interval_seconds": progress["pause_seconds"],
            "micro_batch": said["micro_batch"],
            "finished_at": said["finished_at"],
            "moved_at": said["moved_at"],
            "lag_records": lag,
            "lag_seconds": seconds,
            "records": query.taken.value,
            "per_second": query.taken.rate(now),
            "batch_seconds": durations(query.durations),
        }

    def job_rows(self, now: float) -> list[Row]:
        """Return a row for each job: is it well, and else the kind of its trouble, with what a text needs.

        With `error`, what it said when it ended lately, or for good.
        """
        rows, queries = [], self.query_rows(now)
        for job in sorted({*self._said, *self._words}, key=lambda job: (len(job), job)):
            word = self._words.get(job)
            trouble = self._trouble_of(job, now)
            if trouble:
                waiting = (row for row in queries if row["job"] == job and not row["may_wait"])
                trouble = trouble._replace(behind=sum(sum(row["lag_records"].values()) for row in waiting))
            error = word and {"text": word.text, "seconds": now - word.at}
            rows.append({"name": job, "trouble": trouble and trouble._asdict(), "error": error})
        return rows

    def _trouble_of(self, job: str, now: float) -> jobs.Trouble | None:
        progress, word = self._said.get(job), self._words.get(job)
        if word and job in self._ended and (progress is None or word.at >= progress["at"] - ENDING_SECONDS):
            return jobs.Trouble("failed", now - word.at)
        if progress is None or job not in self._present:
            return jobs.Trouble("ended", now - (progress["at"] if progress else now))
        return jobs.find_trouble(progress, now, SILENT_SECONDS)


def _name(job: str, query: str) -> str:
    return job if job == query else f"{job}/{query}"


def durations(seconds: Sequence[float]) -> Row | None:
    """Return mean and 95th percentile (nearest rank) of durations; None where there is none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {"mean": sum(ordered) / len(ordered), "p95": ordered[ceil(0.95 * len(ordered)) - 1], "count": len(ordered)}
