"""The versions of the global model: which there are, and how good each is.

The scores in a message are those of the version its round started from (`base_version`), on readings which that version
had not seen. So how good a version is stands in the message of a later round.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedstream.broker import kafka
from fedstream.errors import BadMessage, StackError
from fedstream.learning.scores import Score
from fedstream.messages.door import read_count, read_field, read_json_object
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_VERSIONS
from fedstream.settings import Settings

Message = dict[str, Any]

GLOBAL = "global"  # stands for all nodes together, beside the nodes' names
LOWEST_IS_BEST = ("loss", "false_alarm_rate")
METRICS = ("f1", "accuracy", "recall", *LOWEST_IS_BEST)


@dataclass(frozen=True)
class Run:
    """What the topics tell of one run: the message that opened each round, and the one that brought each version."""

    run_id: str
    rounds: dict[int, Message] = field(default_factory=dict)
    versions: dict[int, Message] = field(default_factory=dict)

    @property
    def current(self) -> int:
        """The version that the newest round starts from."""
        return int(self.rounds[max(self.rounds)]["version"])


def read_messages(records: Iterable[Any]) -> list[Message]:
    """Return the JSON objects of Kafka records; what is none (a tombstone of a compacted topic, too) is left out."""
    found = []
    for record in records:
        try:
            found.append(read_json_object(record.value))
        except BadMessage as error:
            if record.value is not None:
                where = f"{record.topic}[{record.partition}]@{record.offset}"
                logging.getLogger(__name__).warning("unusable message at %s: %s", where, error)
    return found


def opens_round(message: Mapping[str, Any]) -> bool:
    """Tell whether a message is that of a round; a running weight is not, nor is one that cannot be used."""
    try:
        read_field(message, "run_id", str, "a string")
        read_count(message, "round", low=1)
        read_count(message, "version", low=0)
        if "metrics" in message:
            Score.from_dict(message["metrics"])
    except BadMessage:
        return False
    return True


def read_runs(versions: Sequence[Message], models: Sequence[Message]) -> list[Run]:
    """Return the runs, the newest one last.

    Args:
        versions: the messages of topic `model-versions`; a later one of the same run and version wins.
        models: those of topic `global-model`, which may no longer hold the first rounds, but also holds failed ones.
    """
    runs: dict[str, Run] = {}
    for message in filter(opens_round, [*versions, *models]):
        runs.setdefault(message["run_id"], Run(message["run_id"])).rounds[message["round"]] = message
    for message in filter(opens_round, [*models, *versions]):
        if "failed" not in message:
            runs[message["run_id"]].versions[message["version"]] = message
    return sorted(runs.values(), key=lambda run: max(each.get("opened_at", 0) for each in run.rounds.values()))


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
    """Read a run from the topics, the newest one by default.

    Raises:
        StackError: there is no such run, or no broker answered.
    """
    versions, models = (read_messages(kafka.follow_topic(settings, each)(0)) for each in (MODEL_VERSIONS, GLOBAL_MODEL))
    return pick_run(read_runs(versions, models), run_id)


def find(run: Run, version: int) -> Message:
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


def scores(run: Run) -> dict[int, dict[str, Score]]:
    """Return the scores of each version that has been measured, by node and for all together (`GLOBAL`).

    In mode async an update may have started from an older version: it measured that one. Of a node with two updates in
    one round, the topic keeps the newer one's score only.
    """
    found: dict[int, dict[str, Score]] = {}
    for message in run.rounds.values():
        if "metrics" not in message:
            continue
        base, staleness = message["base_version"], {each["node_id"]: each["staleness"] for each in message["updates"]}
        nodes = message["node_metrics"].items()
        parts = [(base - staleness.get(node, 0), node, Score.from_dict(score)) for node, score in nodes]
        if any(each["staleness"] for each in message["updates"]):
            parts += [(version, GLOBAL, score) for version, _, score in parts]
        else:
            parts.append((base, GLOBAL, Score.from_dict(message["metrics"])))
        for version, node, score in parts:
            known = found.setdefault(version, {})
            known[node] = known.get(node, Score()) + score
    return found


def best(run: Run, metric: str = "f1") -> int | None:
    """Return the best version by a metric, the newest of equals; None while no version has been measured."""
    sign = -1 if metric in LOWEST_IS_BEST else 1
    measured = {version: sign * getattr(by_node[GLOBAL], metric) for version, by_node in scores(run).items()}
    return max(
        (version for version in measured if version in run.versions), key=lambda v: (measured[v], v), default=None
    )


def pick_version(run: Run, text: str, metric: str = "f1") -> Message:
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
