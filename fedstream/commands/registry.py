"""The versions of the global model: which there are, and how good each is.

The scores in a message are those of the version its round started from (`base_version`), on readings which that version
had not seen. So how good a version is stands in the message of a later round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedstream.broker import kafka
from fedstream.errors import BadMessage, StackError
from fedstream.learning.scores import MEASURES, Score
from fedstream.messages.rounds import GlobalModel, read_round_model
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_VERSIONS, place_of
from fedstream.settings import Settings

M = TypeVar("M")

LOOK_BACK = 10_000  # newest records of topic global-model: what is older is told by the versions
GLOBAL = "global"  # stands for all nodes together, beside the nodes' names


@dataclass(frozen=True)
class Run:
    """What the topics tell of one run: the message that opened each round, and the one that brought each version."""

    run_id: str
    rounds: dict[int, GlobalModel] = field(default_factory=dict)
    versions: dict[int, GlobalModel] = field(default_factory=dict)

    @property
    def current(self) -> int:
        """The version that the newest round starts from."""
        return self.rounds[max(self.rounds)].version


def read_messages(records: Iterable[Any], read: Callable[[bytes | None], M]) -> Iterator[M]:
    """Yield the messages of Kafka records; what is none (a tombstone of a compacted topic, too) is left out."""
    for record in records:
        try:
            yield read(record.value)
        except BadMessage as error:
            if record.value is not None:
                where = place_of(record)
                logging.getLogger(__name__).warning("unusable message at %s: %s", where, error)


def read_models(records: Iterable[Any]) -> Iterator[GlobalModel]:
    """Yield the models that open a round; the running weights between them, and what cannot be used, are left out."""
    return (model for model in read_messages(records, read_round_model) if model)


def newest_of_keys(records: Iterable[Any]) -> list[Any]:
    """Return the newest record of each key of a compacted topic, without those whose newest one is empty."""
    newest: dict[Any, Any] = {}
    for record in records:
        newest.pop(record.key, None)  # so that the keys are in the order of their newest records
        if record.value is not None:
            newest[record.key] = record
    return list(newest.values())


def read_runs(versions: Iterable[GlobalModel], models: Iterable[GlobalModel]) -> list[Run]:
    """Return the runs, the newest one last.

    Args:
        versions: the messages of topic `model-versions`; a later one of the same run and version wins.
        models: those of topic `global-model`, which may no longer hold the first rounds, but also holds failed ones.
    """
    runs: dict[str, Run] = {}
    others: dict[str, dict[int, GlobalModel]] = {}  # versions that only `global-model` tells of
    for message in versions:
        run = runs.setdefault(message.run_id, Run(message.run_id))
        run.rounds[message.round] = message
        if message.failed is None:
            run.versions[message.version] = message
    for message in models:
        runs.setdefault(message.run_id, Run(message.run_id)).rounds[message.round] = message
        if message.failed is None:
            others.setdefault(message.run_id, {})[message.version] = message
    for run_id, more in others.items():
        known = runs[run_id].versions
        known |= more | known
    found = (run for run in runs.values() if run.versions)  # one of failed rounds alone tells nothing
    return sorted(found, key=lambda run: max(each.opened_at for each in run.rounds.values()))


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


def scores(run: Run) -> dict[int, dict[str, Score]]:
    """Return the scores of each version that has been measured, by node and for all together (`GLOBAL`).

    In mode async an update may have started from an older version: it measured that one. Of a node with two updates in
    one round, the topic keeps the newer one's score only.
    """
    found: dict[int, dict[str, Score]] = {}
    for message in run.rounds.values():
        if message.metrics is None or message.base_version is None:
            continue
        base, staleness = message.base_version, {each.node_id: each.staleness for each in message.updates}
        parts = [(base - staleness.get(node, 0), node, score) for node, score in message.node_metrics.items()]
        if any(staleness.values()):
            parts += [(version, GLOBAL, score) for version, _, score in parts]
        else:
            parts.append((base, GLOBAL, message.metrics))
        for version, node, score in parts:
            known = found.setdefault(version, {})
            before = known.get(node, Score())
            if len(before.confusion) in (0, len(score.confusion)):  # else one of them is not the cloud's
                known[node] = before + score
    return found


def best(run: Run, metric: str = "f1") -> int | None:
    """Return the best version by a metric, the newest of equals; None while no version has been measured."""
    is_lowest_best = {measure.name: measure.is_lowest_best for measure in MEASURES}
    sign = -1 if is_lowest_best[metric] else 1
    measured = {version: sign * getattr(by_node[GLOBAL], metric) for version, by_node in scores(run).items()}
    return max(
        (version for version in measured if version in run.versions), key=lambda v: (measured[v], v), default=None
    )


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
