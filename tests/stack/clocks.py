"""A wall clock of its own for each part of the stack, which can be wrong (clock.c).

Each part is started by a bash script: what it starts gets the clock by a file that each bash sources (clock.sh).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tests.stack.machine import NotRunError, need, pids, run
from tests.stack.stack import LOGS, Stack

HERE = Path(__file__).parent
STARTS = {
    "kafka": "start-kafka.sh",
    "zookeeper": "start-zookeeper.sh",
    "spark-master": "start-master.sh",
    "spark-worker-1": "start-worker.sh 1",
    "fog-1": "start-job.sh fog 1",
    "cloud": "start-job.sh cloud",
    "squares-kafka": "start-job.sh squares-kafka",
}


def make(stack: Stack) -> None:
    """Have all parts of a stack that is started from now on use a clock of their own."""
    need("cc", "gcc", "libc6-dev")
    folder = _folder(stack)
    folder.mkdir(parents=True)
    run("cc", "-shared", "-fPIC", "-O2", "-o", str(folder / "clock.so"), str(HERE / "clock.c"), "-ldl")
    shutil.copy(HERE / "clock.sh", folder)
    for start in STARTS.values():
        (folder / start).write_bytes(bytes(8))
    os.environ["CLOCKS"] = str(folder)
    if stack.runner == "docker":
        os.environ["COMPOSE_FILE"] = f"docker-compose.yml:{HERE / 'clock.yml'}"
    else:
        os.environ["BASH_ENV"] = str(folder / "clock.sh")


def expect_own(stack: Stack, part: str) -> None:
    """Make sure that a part has a clock of its own."""
    if "CLOCKS" not in os.environ:
        raise NotRunError("no library for it could be made: that needs root, and a compiler")
    if not any(map(_has_own, pids(stack, part))):
        raise NotRunError("its processes have the machine's clock")


def put_ahead(stack: Stack, part: str, seconds: int) -> None:
    """Put the clock of a part so many seconds ahead of the right time."""
    with (_folder(stack) / STARTS[part]).open("r+b") as file:  # never empty: a program that reads it then would die
        file.write(seconds.to_bytes(8, "little"))


def _has_own(pid: int) -> bool:
    with suppress(OSError):  # it has just ended
        return "clock.so" in Path(f"/proc/{pid}/maps").read_text()
    return False


def _folder(stack: Stack) -> Path:
    return LOGS / stack.runner / "clocks"
