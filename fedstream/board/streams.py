"""How fast topics grow, and how far each query is behind them, also while its driver is dead.

The ends come from the broker, the offsets from the files in which each driver says how far it is (`stack.jobs`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Any

from fedstream.stack import jobs

Offsets = dict[str, dict[str, int]]  # topic: partition: offset of the next record
Row = dict[str, Any]

RATE_SECONDS = 10.0
MOST_ENDS = 600  # of a partition: ten minutes
MOST_BATCHES = 100  # micro-batches of a query of which the durations are kept
SILENT_SECONDS = 10.0  # a driver looks every two seconds
FORGET_SECONDS = 3600.0  # a job that was silent so long was stopped on purpose


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
        if first is None or first is self._looks[-1]:
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


class Query:
    """What is known of a query."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.said: Row = {}
        self.taken = Growth()
        self.durations: deque[float] = deque(maxlen=MOST_BATCHES)

    def take(self, at: float, said: Row, is_real_time: bool) -> None:
        """Take what the driver's file says; a micro-batch of real-time mode is only the time between two commits."""
        if said["micro_batch"] != self.said.get("micro_batch") and said["micro_batch"] >= 0 and not is_real_time:
            self.durations.append(said.get("seconds", 0.0))
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
        for job in [job for job, each in self._said.items() if at - each["at"] > FORGET_SECONDS]:
            del self._said[job]
            for name in [name for name in self._queries if name.partition("/")[0] == job]:
                del self._queries[name]

    def rate(self, topic: str, now: float) -> float:
        """Return how many records a second come onto a topic."""
        return self._topics[topic].rate(now) if topic in self._topics else 0.0

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
        """Return a row for each job: is it well, and else the kind of its trouble, with what a text needs."""
        rows, queries = [], self.query_rows(now)
        for job, progress in sorted(self._said.items(), key=lambda item: (len(item[0]), item[0])):
            trouble = jobs.find_trouble(progress, now, SILENT_SECONDS)
            if job not in self._present:
                trouble = jobs.Trouble("ended", now - progress["at"])
            if trouble:
                waiting = (row for row in queries if row["job"] == job and not row["may_wait"])
                trouble = trouble._replace(behind=sum(sum(row["lag_records"].values()) for row in waiting))
            rows.append({"name": job, "trouble": trouble and trouble._asdict()})
        return rows


def _name(job: str, query: str) -> str:
    return job if job == query else f"{job}/{query}"


def durations(seconds: Sequence[float]) -> Row | None:
    """Return mean and 95th percentile (nearest rank) of durations; None where there is none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {"mean": sum(ordered) / len(ordered), "p95": ordered[ceil(0.95 * len(ordered)) - 1], "count": len(ordered)}
