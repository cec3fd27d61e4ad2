"""A disk of its own for each part of the stack, which can be full: a file system in memory over the part's folder.

It is mounted before the stack starts, and taken away before the stack's folders are deleted.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.stack.machine import NotRunError, need, run
from tests.stack.stack import ENV, ROOT, SERVICES, Stack

ROOM = "2g"  # memory is taken only for what is written
PAGE = 4096
FOLDERS = {
    "kafka": "data/kafka",
    "zookeeper": "data/zookeeper",
    "spark-master": "data/spark-master",
    "spark-worker-1": "data/worker-1",
    "fog-1": "checkpoints/fog-1",
    "cloud": "checkpoints/cloud",
    "squares-kafka": "checkpoints/squares-kafka",
}


def make(stack: Stack) -> None:
    """Mount one for each part of a stack that was never started."""
    need("mount", "mount")
    if stack.runner == "docker":  # the engine makes the volumes with the containers that use them
        run("docker", "compose", "--profile", "jobs", "create", "--build", *SERVICES)
    else:
        (ROOT / ENV["RUN_DIR"]).mkdir(exist_ok=True)
        (ROOT / ENV["RUN_DIR"] / ".fedstream").touch()  # else make up would not use the folder
    for part in FOLDERS:
        if (stack.runner, part) != ("docker", "spark-master"):
            folder = folder_of(stack, part)
            folder.mkdir(parents=True, exist_ok=True)
            owner = folder.parent.stat().st_uid  # that of the programs in the containers
            run("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=755,uid={owner}", _source(stack), str(folder))


def folder_of(stack: Stack, part: str) -> Path:
    """Return the folder of a part, as this machine sees it."""
    if stack.runner == "local":
        return ROOT / ENV["RUN_DIR"] / FOLDERS[part]
    if part == "spark-master":
        raise NotRunError("in Docker its recovery folder is in its container, whose disk is the engine's")
    volume = part if part in ("kafka", "zookeeper") else "data"
    name = f"{ENV['COMPOSE_PROJECT_NAME']}_{volume}"
    root = Path(run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())
    if not os.path.isdir(root):  # also where it may not be looked at
        raise NotRunError("the engine's volumes are not to be seen from here")
    return root / FOLDERS[part].removeprefix("data/")


def fill(folder: Path) -> None:
    """Leave no room on such a disk."""
    for attempt in range(10):
        disk = os.statvfs(folder)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        try:
            run("mount", "-o", f"remount,size={max(used, PAGE)}", str(folder))
            return
        except NotRunError:  # more was written meanwhile
            if attempt == 9:
                raise
            time.sleep(0.1)


def make_room(folder: Path) -> None:
    """Give it back its room."""
    run("mount", "-o", f"remount,size={ROOM}", str(folder))


def take_away(stack: Stack) -> None:
    """Take all away, also those that an earlier run has left; a folder with one on it cannot be deleted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, folder, *_ = line.split()
        if source == _source(stack):
            run("umount", "--lazy", folder)


def _source(stack: Stack) -> str:
    return f"fedstream-chaos-{stack.runner}"
