"""A fresh start for one stopped job: what it has read and counted is forgotten; topics and other jobs stay.

    make reset S=fog-2               stops the job, does this, and starts it again
    make reset S=fog-2 FROM=15m      ... from the records of the last 15 minutes on; also a time, an offset, or end

A fog node then counts from 0. It says so in what it sends (`source`), so that the cloud takes the smaller count for a
new one, and not for an old message.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from fedstream.broker.position import Position, now_ms, parse_position, show_time
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark.state import Reset

JOBS = ("cloud", "squares-kafka", "alerts")  # and fog-N: those that keep a checkpoint


def folder_name(job: str, nodes_per_driver: int) -> str:
    """Return the name of a job's folder below CHECKPOINT_DIR.

    Raises:
        StackError: the job keeps no checkpoint.
    """
    number = job.removeprefix("fog-")
    if job in JOBS:
        return job
    if job != number and number.isdecimal() and int(number) > 0:
        last = int(number) * nodes_per_driver
        return job if nodes_per_driver == 1 else f"fog-{last - nodes_per_driver + 1}-{last}"
    raise StackError(f"S is {job!r}; expected a job that keeps a checkpoint: fog-N, {', '.join(JOBS)}")


def start_of(text: str, time_ms: int) -> Position | None:
    """Return from where a job is to read, None for its topics' first records; `end` is the present time.

    Raises:
        StackError: it is no such text, or lies in the future.
    """
    if text in ("", "end"):
        return Position(time_ms=time_ms) if text else None
    try:
        start = parse_position(text, time_ms)
    except click.BadParameter as error:
        raise StackError(f"FROM is {error.message}, or end") from error
    if start.time_ms is not None and start.time_ms > time_ms:
        raise StackError(f"FROM is {start}, which lies in the future; it is now {show_time(time_ms)}")
    return start


def expect_stopped(folder: Path) -> None:
    """Refuse the folder of a job that runs.

    Raises:
        StackError: a running driver uses it.
    """
    for path in folder.rglob("state.lock"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StackError(f"a running driver uses {path.parent}: stop it first") from error


def reset(folder: Path, last: Reset) -> None:
    """Empty the folder of a stopped job, and note when, and from where it is to read.

    Raises:
        StackError: a running driver uses it.
    """
    expect_stopped(folder)
    if folder.exists():
        shutil.rmtree(folder)
    last.write(folder)


def told(job: str, start: Position | None) -> str:
    """Return what a reset means for a job's counts."""
    if start is None:
        return f"{job}: begins anew with the first records of its topics, and counts from 0"
    since = f"the records from {start} on" if start.time_ms is not None else f"offset {start} of each partition"
    return f"{job}: begins anew with {since}, and counts from 0; earlier records are in none of its counts"


def main(job: str, text: str, environ: Mapping[str, str]) -> None:
    """Reset a job by its name; `text` says from where it is to read."""
    name, time_ms = folder_name(job, int(environ.get("NODES_PER_DRIVER", "1"))), now_ms()
    start = start_of(text, time_ms)
    reset(Settings.from_env(environ).checkpoint_dir / name, Reset(show_time(time_ms), start))
    print(told(job, start))


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], os.environ)
    except StackError as error:
        sys.exit(f"Error: {error.message}")
