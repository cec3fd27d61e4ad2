"""What a job remembers between micro-batches, exactly once however the driver ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fedstream.broker.position import Position
from fedstream.errors import StateError

RESET = "reset.json"  # file in a job's folder

Publish = Callable[..., None]  # publish(*outgoing), each (topic, key, message); returns when the broker has them


class Reset(msgspec.Struct, frozen=True):
    """The last reset of a job, kept in its folder: when it was, and from where the job reads since then."""

    at: str = ""
    start: Position | None = None

    @classmethod
    def of(cls, folder: Path) -> Reset:
        """Return the last reset of the job with this folder, one without a time if there was none."""
        path = folder / RESET
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()

    def write(self, folder: Path) -> None:
        """Keep it in a job's folder."""
        write_json(folder / RESET, msgspec.to_builtins(self))


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once by one with this JSON value: whoever reads it finds the old one or the new one.

    It is on the disk when this returns, its name in the folder, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w") as file:
        json.dump(value, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_begin_anew(folder: Path) -> str:
    """Return what to type so that the job with this folder begins anew."""
    job = os.environ.get("JOB")
    return f"make reset S={job}" if job else f"remove {folder}, or start the program with --from"


def batch_of(folder: Path) -> int:
    """Return the micro-batch that the state in a folder is of; -1 before the first."""
    path = folder / "state.json"
    return int(json.loads(path.read_text())["batch_id"]) if path.exists() else -1


class BatchState:
    """A JSON value beside a query's checkpoint, advanced once for each micro-batch.

    Spark repeats a micro-batch, with the same id and the same offsets, when the driver died before the batch was
    committed. The value is therefore kept with the id of the batch that made it, in one file that is replaced
    atomically: a repeated batch finds its own id and gets back the value that was computed the first time. The offsets
    that Spark planned for it are kept, too: where the checkpoint alone was lost or restored, the same id is another
    batch.
    """

    def __init__(
        self,
        folder: Path,
        initial: dict[str, Any],
        check: Callable[[], None] = lambda: None,
        features: Sequence[str] = (),
    ) -> None:
        """Open or create the state in a folder, and lock it against a second driver.

        `check` is called before a new value is kept, and raises if the micro-batch is not to count. `features` names
        what the value is about: sums of other features cannot be added to.

        Raises:
            StateError: another running driver uses the folder, the file is not this class's, or of other features.
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
        self._check, self._features = check, list(features)
        self.batch_id = -1
        self.value = initial
        self._offsets: list[str] | None = None
        if self._path.exists():
            try:
                stored = json.loads(self._path.read_text())
                self.batch_id, self.value = stored["batch_id"], stored["value"]
                self._offsets, was = stored["offsets"], stored["features"]
                if missing := set(initial) - set(self.value):
                    raise KeyError(", ".join(sorted(missing)))
            except (ValueError, KeyError, TypeError) as error:
                self._lock.close()
                anew = to_begin_anew(folder)
                msg = f"{self._path} is not a saved state ({error}): restore it, or begin anew: {anew}"
                raise StateError(msg) from error
            if was != self._features:
                self._lock.close()
                msg = f"{self._path} was made with the features {', '.join(was)}; FEATURES names {', '.join(features)}"
                raise StateError(f"{msg}. Set FEATURES as it was, or begin anew: {self._anew}")

    def advance(self, batch_id: int, compute: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Return the value after a micro-batch: `compute(value before it)`, or what that gave if it has run already.

        Raises:
            StateError: the batch is neither the next one nor the last one, or it is the last one with other offsets, so
                the checkpoint is not this state's.
        """
        offsets = self._planned_offsets(batch_id)
        if batch_id not in (self.batch_id, self.batch_id + 1):
            msg = f"{self._path} is at micro-batch {self.batch_id} but Spark's checkpoint runs micro-batch {batch_id}"
            raise StateError(f"{msg}: one of the two was removed or restored alone. Begin anew: {self._anew}")
        if batch_id == self.batch_id:
            if offsets != self._offsets:
                msg = f"micro-batch {batch_id} was counted up to {self._offsets}, and the checkpoint plans {offsets}"
                raise StateError(
                    f"{msg}: a part of {self.folder} was lost or restored alone, and the records between the two would "
                    f"not be counted, or twice. Restore the whole folder, or begin anew: {self._anew}"
                )
            return self.value
        value = compute(self.value)
        self._check()
        about = {"batch_id": batch_id, "offsets": offsets, "features": self._features}
        write_json(self._path, about | {"value": value})
        self.batch_id, self.value, self._offsets = batch_id, value, offsets
        return value

    @property
    def _anew(self) -> str:
        return to_begin_anew(self.folder)

    def _planned_offsets(self, batch_id: int) -> list[str] | None:
        """Return where Spark ends this micro-batch, a text for each source; None if it has not written that down."""
        plan = self.folder / "spark" / "offsets" / str(batch_id)
        return plan.read_text().splitlines()[2:] if plan.exists() else None  # behind its version and settings
