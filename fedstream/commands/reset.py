"""A fresh start for one stopped job: what it has read and counted is forgotten; topics and other jobs stay.

    make reset S=fog-2      stops the job, does this, and starts it again

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

from fedstream.broker.position import now_ms, show_time
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark.state import RESET_AT

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


def reset(folder: Path, time_ms: int) -> None:
    """Empty the folder of a stopped job, and note when.

    Raises:
        StackError: a running driver uses it.
    """
    for path in folder.rglob("state.lock"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StackError(f"a running driver uses {path.parent}: stop it first") from error
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / RESET_AT).write_text(show_time(time_ms))


def main(job: str, environ: Mapping[str, str]) -> None:
    """Reset a job by its name."""
    name = folder_name(job, int(environ.get("NODES_PER_DRIVER", "1")))
    reset(Settings.from_env(environ).checkpoint_dir / name, now_ms())
    print(f"{job}: begins anew with the first records of its topics, and counts from 0")


if __name__ == "__main__":
    try:
        main(sys.argv[1], os.environ)
    except StackError as error:
        sys.exit(f"Error: {error.message}")
