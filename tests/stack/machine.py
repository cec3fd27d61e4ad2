"""What faults ask of this machine: programs that need root, and the processes of a part."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.stack.stack import ENV, PREFIX, ROOT, Stack


class NotRunError(Exception):
    """This machine cannot make a fault happen; the text says why."""


def need(tool: str, *packages: str) -> None:
    """Have a program, if need be from Debian's packages, and the rights that it is used with."""
    if os.geteuid() != 0:
        raise NotRunError(f"{tool} needs root")
    if not shutil.which(tool) and shutil.which("apt-get"):
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *words], capture_output=True)
    if not shutil.which(tool):
        raise NotRunError(f"there is no {tool}")


def run(*command: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | ENV)
    if done.returncode:
        raise NotRunError(f"{' '.join(command)[:80]}: {done.stderr.strip()[:200]}")
    return done.stdout


def pids(stack: Stack, part: str) -> list[int]:
    """Return the processes of a part, the first one first."""
    if stack.runner == "docker":
        listed = run("docker", "top", PREFIX + part, "-eo", "pid").split()[1:]
    else:
        listed = run("pgrep", "--pgroup", str(stack.pid(part))).split()
    if not listed or not Path(f"/proc/{listed[0]}").exists():
        raise NotRunError("its processes are not to be seen from here")
    return [int(pid) for pid in listed]
