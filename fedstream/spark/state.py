"""What a job remembers between micro-batches, exactly once however the driver ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedstream.errors import StackError


class StateError(StackError):
    """The state on disk and the checkpoint do not belong together, or another driver holds them."""


Publish = Callable[..., None]  # publish(*outgoing), each (topic, key, message); returns when the broker has them

RESET_AT = "reset-at"  # file in a job's folder: when it was last reset


def reset_at(folder: Path) -> str:
    """Return when a job's folder was last reset, as a text, or an empty one."""
    path = folder / RESET_AT
    return path.read_text() if path.exists() else ""


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once by one with this JSON value: whoever reads it finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w") as file:
        json.dump(value, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


class BatchState:
    """A JSON value beside a query's checkpoint, advanced once for each micro-batch.

    Spark repeats a micro-batch, with the same id and the same offsets, when the driver died before the batch was
    committed. The value is therefore kept with the id of the batch that made it, in one file that is replaced
    atomically: a repeated batch finds its own id and gets back the value that was computed the first time.
    """

    def __init__(self, folder: Path, initial: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
        """Open or create the state in a folder, and lock it against a second driver.

        `check` is called before a new value is kept, and raises if the micro-batch is not to count.

        Raises:
            StateError: another running driver uses the folder, or the file is not this class's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._path = folder / "state.json"
        self._lock = (folder / "state.lock").open("w")  # held until the process ends, even by kill -9
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            msg = f"another running driver uses {folder}: stop it first, or set CHECKPOINT_DIR to another folder"
            raise StateError(msg) from error
        self._check = check
        self.batch_id = -1
        self.value = initial
        if self._path.exists():
            try:
                stored = json.loads(self._path.read_text())
                self.batch_id, self.value = stored["batch_id"], stored["value"]
                if missing := set(initial) - set(self.value):
                    raise KeyError(", ".join(sorted(missing)))
            except (ValueError, KeyError, TypeError) as error:
                self._lock.close()
                msg = f"{self._path} is not a saved state ({error}): restore it, or remove {folder} to start anew"
                raise StateError(msg) from error

    def advance(self, batch_id: int, compute: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Return the value after a micro-batch: `compute(value before it)`, or what that gave if it has run already.

        Raises:
            StateError: the batch is neither the next one nor the last one, so the checkpoint is not this state's.
        """
        if batch_id == self.batch_id:
            return self.value
        if batch_id != self.batch_id + 1:
            msg = (
                f"{self._path} is at micro-batch {self.batch_id} but Spark's checkpoint runs micro-batch {batch_id}: "
                f"one of the two was removed or restored alone; remove {self._path.parent} to start anew"
            )
            raise StateError(msg)
        value = compute(self.value)
        self._check()
        write_json(self._path, {"batch_id": batch_id, "value": value})
        self.batch_id, self.value = batch_id, value
        return value
