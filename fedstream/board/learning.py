"""What is learned, from whom, and what it costs to send: a fold over `model-weights`, `global-model` and `events`."""

from __future__ import annotations

from collections import deque
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from fedstream.learning.scores import Score
from fedstream.messages.rounds import Event, GlobalModel, ModelUpdate, UsedUpdate
from fedstream.messages.weights import GlobalWeight, NodeWeight, merge_update
from fedstream.rounds.admission import KINDS
from fedstream.rounds.runs import GLOBAL, Row, Scores, add_scores, best_of, round_row
from fedstream.settings import Settings

MOST_ROUNDS = 1000
MOST_ROUNDS_OF_NODES = 200  # of which the scores of each node are kept
MOST_VERSIONS_SHOWN = 20
MOST_NODES = 1000
MOST_COUNTS = 100  # newest weights of a node of which the counts are kept
MOST_SIZES = 10_000  # updates whose round has not closed yet
SILENT_SECONDS = 30.0  # a node publishes its weight with each micro-batch

Place = tuple[int, int]  # partition and offset on model-weights


class Node(Struct):
    """A node, beside its running weight."""

    heard_at: float = 0.0  # s since 1970
    answered: int = 0  # the newest round it has answered
    answered_at: float = 0.0
    examples: int = 0  # readings that it has learned from, in the rounds that are known
    update_bytes: int = 0  # of its updates that were used in them
    model_bytes: int = 0  # of the models that it started from
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST_COUNTS))  # when, records so far

    def counted(self, at: float) -> int | None:
        """Return how many records it had counted at a time, by its newest weight then; None if that is not known."""
        return max((count for when, count in self.counts if when <= at), default=None)


class Learning:
    """The newest run, its rounds and versions, and the nodes."""

    def __init__(self, settings: Settings) -> None:
        """Begin before any message."""
        self._settings = settings
        self.weights: dict[str, NodeWeight] = {}
        self.weight: GlobalWeight | None = None
        self.nodes: dict[str, Node] = {}
        self.begin(None)

    def begin(self, run_id: str | None) -> None:
        """Forget the rounds: another run has begun."""
        self.run_id = run_id
        self.opened: GlobalModel | None = None  # without its arrays
        self.rows: dict[int, Row] = {}  # of the closed rounds
        self.versions: dict[int, Row] = {}
        self.results = {"closed": 0, "failed": 0, "rollback": 0}
        self.counts = dict.fromkeys(KINDS, 0)
        self.number = 0  # of rows made so far
        self._opened_at: dict[int, int] = {}  # of each known round, in ms
        self._scores: Scores = {}  # of all nodes together
        self._newest: dict[str, tuple[int, Score]] = {}  # the newest round in which a node was measured
        self._kept_out: dict[str, int] = {}  # the last round in which a node is in quarantine
        self._sizes: dict[Place, int] = {}  # of updates that no known round has used
        self._wanted: dict[Place, tuple[UsedUpdate, int]] = {}  # used, but not seen yet, and its version
        self._model_sizes: dict[int, int] = {}  # of each version
        for node in self.nodes.values():
            node.answered = node.examples = node.update_bytes = node.model_bytes = 0

    # --- what comes

    def take_weight(self, message: NodeWeight | ModelUpdate, place: Place, size: int, at: float) -> None:
        """Take a record of `model-weights`."""
        if message.node_id not in self.nodes and len(self.nodes) >= MOST_NODES:
            return
        node = self.nodes.setdefault(message.node_id, Node())
        node.heard_at = max(node.heard_at, at)
        node.counts.append((at, message.samples + message.rejected))
        merge_update(self.weights, message)
        if not isinstance(message, ModelUpdate) or message.run_id != self.run_id:
            return
        if message.round >= node.answered:
            node.answered, node.answered_at = message.round, at
        if used := self._wanted.pop(place, None):
            self._pay(*used, size)
        else:
            self._sizes[place] = size
            drop_oldest(self._sizes, MOST_SIZES)

    def take_model(self, message: GlobalModel, size: int) -> None:
        """Take the model that opens a round; the cloud says it again with each running weight.

        `size` is that of its record on `global-model`, 0 on `model-versions`.
        """
        if size and message.global_weight is not None:
            self.weight = GlobalWeight(message.global_weight, message.samples or 0, message.nodes or 0)
        if message.run_id != self.run_id:
            if self.opened and message.opened_at < self.opened.opened_at:
                return
            self.begin(message.run_id)
        if size:
            self._model_sizes.setdefault(message.version, size)
        if message.round in self._opened_at or (self._opened_at and message.round < min(self._opened_at) - MOST_ROUNDS):
            return
        bare = replace(message, named_arrays=(), strategy_state={})
        self._opened_at[message.round] = message.opened_at
        if self.opened is None or message.round > self.opened.round:
            self.opened = bare
        if message.closes_round:
            self._close(bare)
        if message.failed is None and message.version not in self.versions:
            kept = ("version", "round", "strategy", "restored_from", "opened_at")
            self.versions[message.version] = {name: getattr(message, name) for name in kept}
        self._bound()

    def take_event(self, event: Event) -> None:
        """Take an event."""
        if event.kind == "quarantine" and event.run_id == self.run_id and event.node_id:
            self._kept_out.pop(event.node_id, None)
            self._kept_out[event.node_id] = event.round + self._settings.quarantine_rounds
            drop_oldest(self._kept_out, MOST_NODES)

    def _close(self, message: GlobalModel) -> None:
        add_scores(self._scores, message)
        for version, by_node in self._scores.items():
            if len(by_node) > 1:
                self._scores[version] = {GLOBAL: by_node[GLOBAL]}
        result = "failed" if message.failed else "rollback" if message.restored_from is not None else "closed"
        self.results[result] += 1
        for kind, count in message.counts.items():
            if kind in self.counts:
                self.counts[kind] += count
        self.number += 1
        nodes = {name: {"f1": score.f1, "loss": score.loss} for name, score in message.node_metrics.items()}
        self.rows[message.round - 1] = round_row(message) | {
            "number": self.number,
            "closed_at": message.opened_at,
            "node_scores": nodes,
        }
        for name, score in message.node_metrics.items():
            if message.round >= self._newest.get(name, (0,))[0]:
                self._newest.pop(name, None)
                self._newest[name] = message.round, score
        drop_oldest(self._newest, MOST_NODES)
        for used in message.updates:
            version = (message.base_version or 0) - used.staleness
            if used.place is None:
                continue
            if (size := self._sizes.pop(used.place, None)) is None:
                self._wanted[used.place] = used, version
            else:
                self._pay(used, version, size)
        drop_oldest(self._wanted, MOST_SIZES)

    def _pay(self, used: UsedUpdate, version: int, size: int) -> None:
        if node := self.nodes.get(used.node_id):
            node.examples += used.num_examples
            node.update_bytes += size
            node.model_bytes += self._model_sizes.get(version, 0)

    def _bound(self) -> None:
        best = self.best()
        for kept in (self.rows, self._opened_at, self.versions, self._model_sizes, self._scores):
            while len(kept) > MOST_ROUNDS:
                del kept[min(key for key in kept if kept is self.rows or key != best)]
        for number in sorted(self.rows)[:-MOST_ROUNDS_OF_NODES]:
            self.rows[number]["node_scores"] = {}

    def best(self) -> int | None:
        """Return the version of the highest F1, the newest of equals."""
        return best_of(self._scores, self.versions)

    # --- what it comes to

    def run_row(self) -> Row | None:
        """Return what is to be said of the run and its open round."""
        if self.opened is None:
            return None
        kept = ("run_id", "model", "strategy", "mode", "round", "version", "opened_at")
        deadline = self._settings.round_deadline_seconds
        newest = self.rows[max(self.rows)] if self.rows else {}
        best = self.best()
        return {name: getattr(self.opened, name) for name in kept} | {
            "deadline_seconds": deadline,
            "rounds": dict(self.results),
            "counts": dict(self.counts),
            "scores": {name: newest.get(name) for name in ("loss", "f1", "recall", "false_alarm_rate")},
            "best": None if best is None else {"version": best, "f1": self._scores[best][GLOBAL].f1},
            "model_bytes": self._model_sizes.get(self.opened.version, 0),
        }

    def version_rows(self) -> list[Row]:
        """Return a row for each of the newest versions, the newest one first, and for the best: its own score."""
        best = self.best()
        shown = sorted(self.versions, reverse=True)[:MOST_VERSIONS_SHOWN]
        shown += [best] if best is not None and best not in shown else []
        return [
            row
            | {"f1": self._scores[version][GLOBAL].f1 if version in self._scores else None}
            | {"loss": self._scores[version][GLOBAL].loss if version in self._scores else None}
            | {"best": version == best, "current": self.opened is not None and version == self.opened.version}
            for version, row in ((version, self.versions[version]) for version in shown)
        ]

    def node_rows(self, now: float, reading_bytes: float) -> list[Row]:
        """Return a row for each node; a reading is so long on average."""
        return [
            {
                "node": name,
                "state": self._state(name, node, now),
                "weight": self.weights[name].weight,
                "readings": self.weights[name].samples,
                "rejected": self.weights[name].rejected,
                "source": self.weights[name].source,
                "heard_at": node.heard_at,
                "answered": node.answered,
                "answered_at": node.answered_at,
                "f1": self._newest[name][1].f1 if name in self._newest else None,
                "loss": self._newest[name][1].loss if name in self._newest else None,
                "kept_out_until": self._kept_out.get(name, 0),
                "examples": node.examples,
                "bytes": {
                    "readings": round(node.examples * reading_bytes),
                    "updates": node.update_bytes,
                    "models": node.model_bytes,
                },
            }
            for name, node in sorted(self.nodes.items(), key=lambda item: (len(item[0]), item[0]))
        ]

    def _state(self, name: str, node: Node, now: float) -> str:
        opened = self.opened
        if now - node.heard_at > SILENT_SECONDS:
            return "silent"
        if opened is None:
            return "counting"
        if self._kept_out.get(name, 0) >= opened.round:
            return "quarantined"
        if node.answered >= opened.round:
            return "answered"
        return "late" if now - opened.opened_at / 1000 > self._settings.round_deadline_seconds else "learning"


def drop_oldest(entries: dict[Any, Any], most: int) -> None:
    """Remove the entries of a dict that came first, down to so many."""
    while len(entries) > most:
        del entries[next(iter(entries))]


def totals(rows: list[Row]) -> dict[str, Any]:
    """Return the bytes of all nodes together."""
    return {kind: sum(row["bytes"][kind] for row in rows) for kind in ("readings", "updates", "models")}
