"""The runs that the topics tell of: the rounds, the versions that came out, and how good each version is.

The scores in a message are those of the version its round started from (`base_version`), on readings which that version
had not seen. So how good a version is stands in the message of a later round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedstream.errors import BadMessage
from fedstream.learning.scores import MEASURES, Score, measures
from fedstream.messages.rounds import GlobalModel, read_round_model
from fedstream.messages.topics import place_of

M = TypeVar("M")
Row = dict[str, Any]  # of a closed round, as `fedstream watch --json` prints it
Scores = dict[int, dict[str, Score]]  # by version and node

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


def round_row(message: GlobalModel) -> Row:
    """Return the row of the round that a message closes: the scores are those of the version it started from."""
    return {
        "type": "round",
        "run_id": message.run_id,
        "round": message.round - 1,
        "version": message.version,
        "base_version": message.base_version,
        "nodes": len(message.node_metrics),
        **measures(message.metrics),
        "counts": message.counts,
        "strategy": message.strategy,
        "failed": message.failed,
        "restored_from": message.restored_from,
    }


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


def scores(run: Run) -> Scores:
    """Return the scores of each version that has been measured, by node and for all together (`GLOBAL`)."""
    found: Scores = {}
    for message in run.rounds.values():
        add_scores(found, message)
    return found


def add_scores(found: Scores, message: GlobalModel) -> None:
    """Add what a round has measured to the scores so far.

    In mode async an update may have started from an older version: it measured that one. Of a node with two updates in
    one round, the topic keeps the newer one's score only.
    """
    if message.metrics is None or message.base_version is None:
        return
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


def best(run: Run, metric: str = "f1") -> int | None:
    """Return the best version by a metric, the newest of equals; None while no version has been measured."""
    return best_of(scores(run), run.versions, metric)


def best_of(measured: Scores, versions: Iterable[int], metric: str = "f1") -> int | None:
    """Return the best of some versions by their scores, as `best` does."""
    is_lowest_best = {measure.name: measure.is_lowest_best for measure in MEASURES}
    sign = -1 if is_lowest_best[metric] else 1
    known = {version: sign * getattr(measured[version][GLOBAL], metric) for version in versions if version in measured}
    return max(known, key=lambda version: (known[version], version), default=None)
