"""Why a program of the stack has ended, in its own words: kept in CHECKPOINT_DIR/running/JOB.error.

The health checks and the board read it: a log can be read by nobody else on Docker. It needs the standard library only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LONGEST_TEXT = 2000  # characters


class LastWord(NamedTuple):
    """What a program said last, and when (s since 1970)."""

    at: float
    text: str


def _own_path() -> Path | None:
    """Return the file of this program, if it is a job that a start script of the stack runs."""
    job, folder = os.environ.get("JOB"), os.environ.get("CHECKPOINT_DIR")
    return Path(folder) / "running" / f"{job}.error" if job and folder else None


def forget() -> None:
    """Remove what an earlier run of this job has said: it begins anew."""
    if path := _own_path():
        with suppress(OSError):  # a disk that cannot be written ends the job soon, with its own words
            path.unlink(missing_ok=True)


def keep(text: str) -> None:
    """Keep why this job ends."""
    path = _own_path()
    if path is None:
        return
    with suppress(OSError):  # a full disk, say: the log has the same text
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text[:LONGEST_TEXT], encoding="utf-8")
        unfinished.replace(path)


def read(checkpoints: Path, job: str) -> LastWord | None:
    """Return what a job said last; None if it has not ended with an error, or has begun anew."""
    path = checkpoints / "running" / f"{job}.error"
    try:
        return LastWord(path.stat().st_mtime, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def read_all(checkpoints: Path) -> dict[str, LastWord]:
    """Return what each job that has ended with an error said last, by its name."""
    names = sorted(path.stem for path in (checkpoints / "running").glob("*.error"))
    return {name: word for name in names if (word := read(checkpoints, name))}
