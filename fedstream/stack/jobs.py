"""How far the jobs of a running stack have come: their last micro-batches, and how far they are behind their topics.

Each driver writes that to CHECKPOINT_DIR/running/JOB.json (`fedstream.spark.progress`). When it is stopped on purpose,
its start script renames the file to JOB.stopped. It needs the standard library only: it is read by health checks, and
on the host before anything is installed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SILENT_SECONDS = 20.0  # a driver looks every 2 s
STALLED_SECONDS = 20.0  # a micro-batch takes a second or two

Progress = dict[str, Any]  # of a driver, as its file has it


def read_progress(checkpoints: Path, job: str) -> Progress | None:
    """Return what a driver has said last; None if it has said nothing yet."""
    try:
        found: Progress = json.loads((checkpoints / "running" / f"{job}.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def read_all(checkpoints: Path) -> list[Progress]:
    """Return what each driver has said last, in the order of their jobs' names."""
    names = sorted(path.stem for path in (checkpoints / "running").glob("*.json"))
    return [progress for progress in (read_progress(checkpoints, name) for name in names) if progress]


def read_stopped(checkpoints: Path) -> set[str]:
    """Return the jobs whose drivers were stopped on purpose and have not begun anew."""
    running = checkpoints / "running"
    return {path.stem for path in running.glob("*.stopped")} - {path.stem for path in running.glob("*.json")}


class Trouble(NamedTuple):
    """Why a driver is not well: it is "silent" or "stalled"; the board also knows "ended" and "failed"."""

    kind: str
    seconds: float
    query: str = ""
    behind: int | None = None  # records that wait for the query; None: its first


def find_trouble(progress: Progress, now: float, silent_seconds: float = SILENT_SECONDS) -> Trouble | None:
    """Return why a running driver is not well by what it has said last, None if it is well."""
    silent = now - progress["at"]
    if silent > silent_seconds:
        return Trouble("silent", silent)
    for query in progress["queries"]:
        still = now - query["moved_at"]
        if still > STALLED_SECONDS + progress["pause_seconds"]:
            return Trouble("stalled", still, query["name"], query["behind"] or None)
    return None


def trouble_of(progress: Progress, now: float) -> str:
    """Return the same in words, an empty text if it is well."""
    trouble = find_trouble(progress, now)
    return in_words(trouble) if trouble else ""


def in_words(trouble: Trouble) -> str:
    """Return what is said of a running driver that is "silent" or "stalled"."""
    if trouble.kind == "silent":
        return f"its driver has said nothing for {trouble.seconds:.0f} s: it is paused, or its machine is busy"
    waiting = f"{trouble.behind:,}" if trouble.behind else "its first"
    return (
        f"query {trouble.query} has finished no micro-batch for {trouble.seconds:.0f} s, and {waiting} records wait: "
        "its tasks hang, or this machine is too small for all jobs"
    )


def rows(progress: Iterable[Progress], restarts: Mapping[str, int] | None, now: float) -> list[list[str]]:
    """Return a row for each query: job, query, last micro-batch, how long ago, records behind, restarts of the job."""
    return [
        [
            each["job"],
            query["name"],
            str(query["micro_batch"]) if query["micro_batch"] >= 0 else "none yet",
            f"{now - query['finished_at']:.0f} s" if query["micro_batch"] >= 0 else "-",
            "-" if query["behind"] is None else f"{query['behind']:,}",
            *([] if restarts is None else [str(restarts.get(each["job"], 0))]),
        ]
        for each in progress
        for query in each["queries"]
    ]


def table(progress: Iterable[Progress], restarts: Mapping[str, int] | None = None) -> str:
    """Return the rows as a table, an empty text without jobs; without `restarts` it has no column of them."""
    heading = ["JOB", "QUERY", "LAST MICRO-BATCH", "AGO", "RECORDS BEHIND"] + ["RESTARTS"] * (restarts is not None)
    found = rows(progress, restarts, time.time())
    widths = [max(map(len, column)) for column in zip(heading, *found, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heading, *found])
    return "\n".join(line.rstrip() for line in lines) if found else ""
