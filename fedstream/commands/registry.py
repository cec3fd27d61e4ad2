"""The runs on the topics: one is read by its name, a version of it is picked."""

from __future__ import annotations

from collections.abc import Sequence

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_VERSIONS
from fedstream.rounds.runs import Run, best, newest_of_keys, read_models, read_runs
from fedstream.settings import Settings

LOOK_BACK = 10_000  # newest records of topic global-model: what is older is told by the versions


def pick_run(runs: Sequence[Run], run_id: str | None = None) -> Run:
    """Return a run by its name, or the newest one.

    Raises:
        StackError: there is no such run, or none at all.
    """
    if not runs:
        msg = (
            f"topics {MODEL_VERSIONS} and {GLOBAL_MODEL} hold no model yet; a run starts when fog nodes and cloud are "
            "running (make ps) with a MODEL other than mean"
        )
        raise StackError(msg)
    found = [run for run in runs if run_id in (None, run.run_id)]
    if not found:
        raise StackError(f"there is no run {run_id}; known: {', '.join(run.run_id for run in runs)}")
    return found[-1]


def load_run(settings: Settings, run_id: str | None = None) -> Run:
    """Read a run from the topics, the newest one by default: the versions that are kept, and the newest rounds.

    Raises:
        StackError: there is no such run, or no broker answered.
    """
    versions = newest_of_keys(kafka.read_topic(settings, MODEL_VERSIONS))
    models = kafka.read_topic(settings, GLOBAL_MODEL, LOOK_BACK)
    return pick_run(read_runs(read_models(versions), read_models(models)), run_id)


def find(run: Run, version: int) -> GlobalModel:
    """Return the message of a version.

    Raises:
        StackError: there is no such version; the text names those there are.
    """
    if version not in run.versions:
        raise StackError(f"there is no version {version} of run {run.run_id}; known: {_ranges(sorted(run.versions))}")
    return run.versions[version]


def _ranges(numbers: Sequence[int]) -> str:
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}..{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True)) or "none"


def pick_version(run: Run, text: str, metric: str = "f1") -> GlobalModel:
    """Return the message of a version, given as a number, `best` or `current`.

    Raises:
        StackError: there is no such version, or none has been measured yet.
    """
    if text == "best":
        version = best(run, metric)
        if version is None:
            raise StackError(f"no version of run {run.run_id} has been measured yet; wait for the end of a round")
        return find(run, version)
    if text != "current" and not text.isdecimal():
        known = _ranges(sorted(run.versions))
        raise StackError(f"version is {text!r}; expected best, current or a number; known: {known}")
    return find(run, run.current if text == "current" else int(text))
