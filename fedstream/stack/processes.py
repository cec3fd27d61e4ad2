"""The processes of a stack of the local runner: which run, which have lost their supervisord, and how they end.

supervisord names its socket and the part in the environment of each process that it starts, and what such a process
starts inherits both. So a process is known by its environment, also when its supervisord was killed and it runs on. A
program typed by hand after `source deploy/local/env.sh` has neither variable: it is not of the stack, and nobody
touches it.

Examples, for the stack whose folder is RUN_PATH:
    python -m fedstream.stack.processes                    list what runs on without supervisord
    python -m fedstream.stack.processes --stop-left-over   end that: make up
    python -m fedstream.stack.processes --stop             end the whole stack: make down
    python -m fedstream.stack.processes --kill             end it at once, since its data are deleted: make clean

Runs before anything is installed, so it needs Python's standard library only. Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SUPERVISORD_SECONDS = 90.0  # it ends its parts one after the other
STOP_SECONDS = 10.0  # a part has as long between SIGTERM and SIGKILL as supervisord gives it ...
KAFKA_STOP_SECONDS = 30.0  # ... and the broker has longer, to hand over its partitions
KILL_SECONDS = 10.0

Parts = dict[int, str]  # the part that a process belongs to, by process id


class StillRunningError(RuntimeError):
    """Processes of the stack could not be ended; the text names them."""


def running(run_path: Path) -> Parts:
    """Return every process that a supervisord of this run path has started, and all that these have started."""
    found = {}
    for pid in _pids():
        variables = _variables(pid)
        socket = variables.get("SUPERVISOR_SERVER_URL", "").removeprefix("unix://")
        if socket and _is_same(os.path.dirname(socket), run_path):
            found[pid] = variables.get("SUPERVISOR_PROCESS_NAME", "a part")
    found.pop(os.getpid(), None)
    return found


def supervisords(run_path: Path) -> Parts:
    """Return the supervisord of this run path, also if its socket and its pid file are gone; it is at most one."""
    return {pid: "supervisord" for pid in _pids() if _is_supervisord(pid) and _is_of(pid, run_path)}


def left_over(run_path: Path) -> Parts:
    """Return those of the running processes that are below no living supervisord: nothing starts or stops them."""
    own = supervisords(run_path).keys()
    found = {}
    for pid, part in running(run_path).items():
        above = _ancestors(pid)
        # A process that has ended meanwhile has no complete line of ancestors.
        if above[-1:] == [0] and not own & set(above):
            found[pid] = part
    return found


def named(parts: Parts) -> str:
    """Return processes as a text: `fog-1 (process 12), kafka (process 13)`."""
    return ", ".join(f"{part} (process {pid})" for pid, part in sorted(parts.items(), key=lambda item: item[::-1]))


def stop_left_over(run_path: Path) -> Parts:
    """End what has no supervisord: jobs and Spark, then Kafka, then ZooKeeper, which Kafka needs in order to end.

    Returns:
        What was ended.

    Raises:
        StillRunningError: a process outlived SIGKILL, or has started this very program.
    """
    ended: Parts = {}
    steps = (("kafka", "zookeeper"), STOP_SECONDS), (("zookeeper",), KAFKA_STOP_SECONDS), ((), STOP_SECONDS)
    for later, seconds in steps:
        ended |= _end(functools.partial(_left_over_except, later, run_path), seconds)
    _expect_none(left_over(run_path))
    return ended


def stop(run_path: Path) -> Parts:
    """End the whole stack: its supervisord, which ends its parts, and then all that is left over.

    Returns:
        What was left over before.

    Raises:
        StillRunningError: a process outlived SIGKILL, or has started this very program.
    """
    found = left_over(run_path)
    _end(lambda: supervisords(run_path), SUPERVISORD_SECONDS)
    stop_left_over(run_path)
    _expect_none(supervisords(run_path) | running(run_path))
    return found


def kill(run_path: Path) -> Parts:
    """End the whole stack at once, first its supervisord, which would start its parts again.

    Returns:
        What was left over before.

    Raises:
        StillRunningError: a process outlived SIGKILL, or has started this very program.
    """
    found = left_over(run_path)
    for find in (supervisords, running):
        _end(functools.partial(find, run_path), 0)
    _expect_none(supervisords(run_path) | running(run_path))
    return found


def _end(find: Callable[[], Parts], seconds: float) -> Parts:
    """Send SIGTERM to what is found, SIGKILL to what is found after so many seconds; return all that was found.

    With 0 seconds there is SIGKILL only.

    What is found is looked for anew before each signal, so that no signal reaches a new process with an old id.
    """
    spared = {os.getpid(), *_ancestors(os.getpid())}  # who asks is told by the caller, and not ended
    found: Parts = {}
    gently = [(signal.SIGTERM, seconds)] if seconds else []
    for number, patience in (*gently, (signal.SIGKILL, KILL_SECONDS)):
        told: set[int] = set()
        deadline = time.monotonic() + patience
        while alive := {pid: part for pid, part in find().items() if pid not in spared}:
            for pid in alive.keys() - told:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            told |= alive.keys()
            found |= alive
            if time.monotonic() > deadline:
                print(f"not ended within {patience:g} s of {number.name}: {named(alive)}", flush=True)
                break
            time.sleep(0.1)
    return found


def _left_over_except(names: tuple[str, ...], run_path: Path) -> Parts:
    return {pid: part for pid, part in left_over(run_path).items() if part not in names}


def _expect_none(remaining: Parts) -> None:
    if remaining:
        msg = (
            f"still running: {named(remaining)}; expected all to end. Either this command was started by it, or it "
            f"hangs in the kernel: look with ps -o pid,stat,args -p {','.join(map(str, sorted(remaining)))}, and try "
            "again when it has ended."
        )
        raise StillRunningError(msg)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _variables(pid: int) -> dict[str, str]:
    """Return a process's environment; none if it has ended or is another user's."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(os.fsdecode(line).partition("=")[::2] for line in content.split(b"\0"))


def _is_supervisord(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) == b"supervisord" for word in words[:2])  # itself, or Python's script


def _is_of(pid: int, run_path: Path) -> bool:
    own = _variables(pid).get("RUN_PATH")
    return own is not None and _is_same(own, run_path)


def _is_same(path: str, run_path: Path) -> bool:
    """Compare two paths, of which one may end in a slash or pass through a link."""
    return os.path.realpath(path) == os.path.realpath(run_path)


def _ancestors(pid: int) -> list[int]:
    """Return a process's parent, its parent, and so on up to 0; fewer if one of them ends meanwhile."""
    found: list[int] = []
    while pid:
        try:
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            break
        pid = int(status.rpartition(")")[2].split()[1])  # after the name, which may hold anything, and the state
        found.append(pid)
    return found


def main() -> None:
    """List or end processes; exit code 1 if some run on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stop-left-over", action="store_const", dest="end", const=stop_left_over)
    what.add_argument("--stop", action="store_const", dest="end", const=stop)
    what.add_argument("--kill", action="store_const", dest="end", const=kill)
    end = parser.parse_args().end
    run_path = Path(os.environ["RUN_PATH"])
    if end is None:
        for pid, part in left_over(run_path).items():
            print(f"{part:<20} process {pid} runs on without supervisord")
        return
    try:
        ended = end(run_path)
    except StillRunningError as error:
        sys.exit(str(error))
    if ended:
        print(f"stopped what ran on without supervisord ({len(ended)}): {', '.join(sorted(set(ended.values())))}")


if __name__ == "__main__":
    main()
