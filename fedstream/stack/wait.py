"""Waits until parts of a stack of the local runner work: the end of `make up` and `make run-JOB`.

    python -m fedstream.stack.wait --timeout 120 kafka spark    services, one after the other
    python -m fedstream.stack.wait --timeout 120 fog-1 cloud    jobs, all at once

Gives up as soon as a job has ended for good or ends again and again, and says why.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fedstream.stack import health, parts
from fedstream.stack.progress import Progress

SERVICES = ("zookeeper", "kafka", "topics", "spark", "producer", "board", "history", "prometheus")
LIVED_SECONDS = 10.0  # a program that nothing can be asked works when it has lived so long, or has said something
PAUSE_SECONDS = 0.3


class TroubleError(RuntimeError):
    """A part does not work; the text says which, why, and where to read on."""


def condition(name: str, process: Mapping[str, Any], log: Path, env: Mapping[str, str]) -> str:
    """Return what a job still waits for, an empty text once it works.

    Args:
        name: the job.
        process: what supervisord says of it.
        log: its log.
        env: the stack's variables.

    Raises:
        TroubleError: it has ended for good.
    """
    state = process["statename"]
    if state == "EXITED" and process["exitstatus"] == 0:
        return ""
    has_page = health.has_page(name, env)
    if state == "FATAL" or (state == "EXITED" and not has_page):  # a driver that has exited is being started again
        raise TroubleError(_told(f"{name} has ended (exit status {process['exitstatus']})", name, log))
    if state != "RUNNING":
        return "its process"
    if has_page:
        try:
            health.check(name, env)
        except health.NotReadyError as error:
            return str(error)
        return ""
    supervisord_log = (log.parent / "supervisord.log").read_text(errors="replace")
    # Not of the whole second of process["start"], in which an earlier process may have said its last words.
    spawned_at = parts.spawned_at(supervisord_log, process["pid"])
    has_spoken = log.exists() and log.stat().st_mtime >= spawned_at
    return "" if has_spoken or process["now"] - process["start"] >= LIVED_SECONDS else "its first words"


def wait_for_service(name: str, env: Mapping[str, str], timeout_seconds: float, progress: Progress) -> None:
    """Ask a service until it is ready.

    Raises:
        TroubleError: it is not in time.
    """
    while True:
        try:
            health.check(name, env)
        except health.NotReadyError as error:
            if progress.seconds >= timeout_seconds:
                msg = f"{name} is not ready after {timeout_seconds:g} s: {error}\n{health.log_end(name, env)}"
                raise TroubleError(msg.strip()) from error
            progress.waiting(name)
            time.sleep(PAUSE_SECONDS)
        else:
            progress.say(f"  {name:<12} ready ({progress.seconds:.1f} s)")
            return


def wait_for_jobs(names: Sequence[str], env: Mapping[str, str], timeout_seconds: float, progress: Progress) -> None:
    """Look after jobs until all of them work.

    Raises:
        TroubleError: one has ended, ends again and again, or does not work in time.
    """
    logs = Path(env["RUN_PATH"]) / "logs"
    ends_before = _ends(logs)
    left = list(names)
    worked: set[str] = set()  # at the look before: what a program says first may be why it ends
    while left:
        processes = {process["name"]: process for process in parts.supervised(env)}
        ends = _ends(logs)
        for name in tuple(left):
            log = logs / f"{name}.log"
            reason = condition(name, processes[name], log, env)
            if not reason and name not in worked:
                worked.add(name)
            elif not reason:
                progress.say(f"  {name:<12} ready ({progress.seconds:.1f} s)")
                left.remove(name)
            elif (ended := ends.get(name, 0) - ends_before.get(name, 0)) >= parts.MANY_ENDS:
                raise TroubleError(_told(f"{name} has {parts.MANY.format(ended)}", name, log))
            elif progress.seconds >= timeout_seconds:
                msg = f"{name} is not ready after {timeout_seconds:g} s: {reason}\n{health.log_end(name, env)}"
                raise TroubleError(msg)
        if left:
            progress.waiting(", ".join(left))
            time.sleep(PAUSE_SECONDS)


def _ends(logs: Path) -> dict[str, int]:
    return parts.count_ends((logs / "supervisord.log").read_text(errors="replace"), datetime.now())


def _told(what: str, name: str, log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-parts.LOG_LINES :] if log.exists() else []
    last = parts.last_word("\n".join(lines)) or next((line for line in reversed(lines) if line.strip()), "nothing")
    return f"{what}; the last word of its log: {last}\nRead it with: make logs S={name}"


def main() -> None:
    """Wait for the named parts; exit code 1 if one does not work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="services (kafka, spark ...) or jobs (fog-1 ...)")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="wait that long [default: 0]")
    options = parser.parse_args()
    progress = Progress()
    try:
        for name in (name for name in options.names if name in SERVICES):
            wait_for_service(name, os.environ, options.timeout, progress)
        wait_for_jobs([name for name in options.names if name not in SERVICES], os.environ, options.timeout, progress)
    except TroubleError as error:
        progress.end()
        sys.exit(str(error))


if __name__ == "__main__":
    main()
