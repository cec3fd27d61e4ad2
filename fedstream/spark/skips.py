"""Records that no job can read, passed over by hand: a file beside a query's checkpoint names their places.

Spark cannot leave out a record in the middle of a micro-batch. So when a driver starts, its planned micro-batch is cut
off before that record. Once all before it is counted, the query fails there again, its runner starts the driver anew,
and then the checkpoint is set behind the record.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
from kafka import TopicPartition

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark.state import batch_of, write_json

SKIPS = "skips.json"
UNREADABLE = re.compile(r"Record batch for partition (\S+)-(\d+) at offset (\d+) is invalid, cause: (.+)")

Ends = dict[str, dict[str, int]]  # topic: partition: offset of the next record


class Skip(msgspec.Struct, frozen=True, order=True):
    """The place of records that no job can read: the offsets from first to last of a partition."""

    topic: str
    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        last = f"-{self.last}" if self.last > self.first else ""
        return f"{self.topic}:{self.partition}:{self.first}{last}"

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Tell whether a record is one of them."""
        return (self.topic, self.partition) == (topic, partition) and self.first <= offset <= self.last


def parse_place(text: str) -> Skip:
    """Read `topic:partition:offset` or `topic:partition:first-last`.

    Raises:
        StackError: it is no such text.
    """
    found = re.fullmatch(r"([\w.-]+):(\d{1,9}):(\d{1,18})(?:-(\d{1,18}))?", text, re.ASCII)
    if not found or int(found[3]) > (last := int(found[4] or found[3])):
        raise StackError(
            f"AT is {text!r}; expected topic:partition:offset or topic:partition:first-last, as the job's error says"
        )
    return Skip(found[1], int(found[2]), int(found[3]), last)


class Plan:
    """What a query's checkpoint says of its newest micro-batches: which is planned, and which is done."""

    def __init__(self, folder: Path) -> None:
        """Read it of the query with this folder."""
        self._checkpoint = folder / "spark"
        self.planned, self.done = (_newest(self._checkpoint / name) for name in ("offsets", "commits"))
        self.is_counted = self.planned <= max(self.done, batch_of(folder))

    def ends(self, number: int) -> Ends:
        """Return where a micro-batch ends; of number -1, where the first one begins."""
        path = self._file(number)
        found: Ends = json.loads(path.read_text().splitlines()[-1]) if path.exists() else {}  # behind its version
        return found

    def set_end(self, number: int, skip: Skip, offset: int) -> None:
        """Have a micro-batch end at another offset of the skip's partition."""
        path, ends = self._file(number), self.ends(number)
        ends[skip.topic][str(skip.partition)] = offset
        lines = [*path.read_text().splitlines()[:-1], json.dumps(ends, separators=(",", ":"))]
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text("\n".join(lines))
        unfinished.replace(path)

    def drop(self) -> None:
        """Forget the micro-batch that is planned and not done: Spark plans another one."""
        self._file(self.planned).unlink()

    def _file(self, number: int) -> Path:
        return self._checkpoint / ("sources/0/0" if number < 0 else f"offsets/{number}")


def _newest(folder: Path) -> int:
    return max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), default=-1)


def unread(folder: Path) -> list[Skip]:
    """Return what a query with this folder has planned to read and not counted yet, a place for each partition."""
    plan = Plan(folder)
    if plan.is_counted:
        return []
    begins = plan.ends(plan.done)
    found = (
        Skip(topic, int(number), begins.get(topic, {}).get(number, 0), end - 1)
        for topic, ends in plan.ends(plan.planned).items()
        for number, end in ends.items()
    )
    return sorted(each for each in found if each.first <= each.last)


def skips_of(folder: Path) -> list[Skip]:
    """Return what a query with this folder is to pass over, in order."""
    path = folder / SKIPS
    return sorted(msgspec.json.decode(path.read_bytes(), type=list[Skip])) if path.exists() else []


def add_skip(folder: Path, skip: Skip) -> None:
    """Have a query with this folder pass over records from its next start on."""
    kept: Any = msgspec.to_builtins(sorted({*skips_of(folder), skip}))
    write_json(folder / SKIPS, kept)


def pass_over(folder: Path) -> None:
    """Prepare the checkpoint of a query that is about to start, so that it does not read what it is to pass over."""
    for skip in skips_of(folder):
        plan, left = Plan(folder), unread(folder)
        at = plan.ends(plan.done).get(skip.topic, {}).get(str(skip.partition))
        if plan.is_counted and plan.planned > plan.done:
            continue  # it was read, and what came of it is only to be sent again
        if at is not None and skip.first <= at <= skip.last:
            if plan.planned > plan.done:
                plan.drop()
            plan.set_end(plan.done, skip, skip.last + 1)
        elif any(each.holds(skip.topic, skip.partition, skip.first) for each in left):
            plan.set_end(plan.planned, skip, skip.first)


def unreadable(text: str, settings: Settings) -> str:
    """Return what to do if a query failed, by the text of its error, at records that no job can read; else nothing."""
    found = UNREADABLE.search(text)
    if not found:
        return ""
    topic, partition, first, cause = found[1], int(found[2]), int(found[3]), found[4]
    skip = Skip(topic, partition, first, kafka.last_unreadable(settings, TopicPartition(topic, partition), first))
    return cannot_read(skip, cause)


def counts(job: str) -> bool:
    """Tell whether a job keeps counts, which it loses when it begins anew."""
    return not job.startswith(("alerts", "squares"))


def cannot_read(skip: Skip, cause: str) -> str:
    """Return what is told of records that no job can read, with the command that passes over them."""
    job = os.environ.get("JOB", "JOB")
    command = f"make skip S={job} AT={skip}" if counts(job) else f"make reset S={job} FROM={skip.last + 1}"
    return f"no job can read {skip} (topic:partition:offset): {cause}. To pass over it: {command}"
