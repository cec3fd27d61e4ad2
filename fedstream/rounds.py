"""Rounds: which updates count, when a round closes, and what the next one starts from.

Pure: messages and the time come in as arguments, messages go out through `outbox`; no Spark, no Kafka, no clock. The
cloud and the simulation run the same code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedstream import arrays as wire
from fedstream import strategies
from fedstream.admission import is_known, kind_of
from fedstream.arrays import Arrays
from fedstream.drift import has_drifted
from fedstream.messages import EVENTS, GLOBAL_MODEL, MODEL_VERSIONS, BadMessage, NodeUpdate
from fedstream.metrics import Score
from fedstream.models import Model
from fedstream.protocol import ModelUpdate, RoundModel, check_size
from fedstream.settings import Settings, parse_options
from fedstream.strategies import Reply, StrategyError
from fedstream.training import Scaler, Statistics, merge_statistics, scaler_of

FIRST_SAMPLES = 20  # readings in all before the first round: fewer say little about the features' scale
BOOST_ROUNDS = 5

KINDS = ("accepted", "abstained", "late", "duplicate", "stale", "unknown", "quarantined", "rejected", "missing")

Outgoing = tuple[str, str, dict[str, Any]]  # topic, key, message


@dataclass
class Federation:
    """One run: the global model, the round that is open, and what is known of the nodes."""

    run_id: str
    features: int = 2
    classes: int = 2
    round: int = 0  # 0: none has been opened yet
    version: int = 0
    arrays: Arrays = field(default_factory=dict)
    scaler: Scaler | None = None
    config: dict[str, Any] = field(default_factory=dict)
    participants: tuple[str, ...] = ()
    opened_at: int = 0  # ms since 1970
    is_overdue: bool = False
    pending: list[tuple[ModelUpdate, Any]] = field(default_factory=list)  # with their places in the topic
    abstained: list[str] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)  # node: the last round in which it answered (or joined)
    trained_at: dict[str, int] = field(default_factory=dict)  # node: of its newest accepted update
    statistics: dict[str, Statistics] = field(default_factory=dict)
    offences: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)  # node: the last round in which it is kept out
    counts: Counter[str] = field(default_factory=Counter)  # of this round, by kind
    bases: dict[int, Arrays] = field(default_factory=dict)  # async: the versions that a stale update may start from
    errors: dict[str, list[float]] = field(default_factory=dict)  # node: prequential error, round by round
    boost_until: int = 0

    def __post_init__(self) -> None:
        """Start with an empty outbox; `join` gives the parts that are not saved."""
        self.outbox: list[Outgoing] = []

    def join(self, settings: Settings, model: Model, strategy_state: Mapping[str, Any] | None = None) -> Federation:
        """Give a new or restored federation its settings, model and strategy; return it."""
        self.settings, self.model = settings, model
        self.strategy = self._new_strategy()
        if strategy_state:
            strategies.restore_strategy(self.strategy, strategy_state)
        return self

    def _new_strategy(self) -> Any:
        options = parse_options("STRATEGY_OPTIONS", self.settings.strategy_options)
        return strategies.make_strategy(self.settings.strategy, options)

    # --- what comes in

    def hear(self, update: NodeUpdate) -> None:
        """Take over what a node's readings say about the features' scale; it takes part from now on.

        Raises:
            BadMessage: it speaks of another number of features, or a sum of squares is negative.
        """
        if not update.sums or not is_known(update.node_id, self.settings):
            return
        if len(update.sums) != self.features:
            msg = f"sums has {len(update.sums)} numbers; expected {self.features}, one for each feature"
            raise BadMessage(msg)
        if min(update.squares) < 0:
            msg = f"squares is {update.squares!s:.100}; expected sums of squares, none below 0"
            raise BadMessage(msg)
        known = self.statistics.get(update.node_id)
        if known is None or update.samples > known.count:
            self.statistics[update.node_id] = Statistics(update.samples, update.sums, update.squares)
        self.heard.setdefault(update.node_id, self.round)

    def receive(self, update: ModelUpdate, place: Any = None) -> str:
        """Count an update by kind, keep it if it is accepted, and return the kind.

        Raises:
            BadMessage: it cannot be used; it counts as an offence of its node.
        """
        try:
            kind = kind_of(self, update)
        except BadMessage as error:
            self.offend(update.node_id, str(error))
            raise
        self.counts[kind] += 1
        if kind in ("accepted", "abstained", "late", "stale"):
            self.heard[update.node_id] = self.round
        if kind in ("accepted", "abstained"):
            self.trained_at[update.node_id] = update.trained_at
        if kind == "accepted":
            self.pending.append((update, place))
        elif kind == "abstained":
            self.abstained.append(update.node_id)
        return kind

    def receive_message(self, message: Mapping[str, Any], place: Any) -> str:
        """Read an update and receive it.

        Raises:
            BadMessage: as `receive`; a message that cannot be read is an offence, too.
        """
        try:
            update = ModelUpdate.from_message(message)
        except BadMessage as error:
            self.offend(str(message.get("node_id")), str(error))
            raise
        return self.receive(update, place)

    def offend(self, node_id: str, reason: str) -> None:
        """Count a bad update; a node with too many is kept out for some rounds."""
        self.counts["rejected"] += 1
        self.offences[node_id] = self.offences.get(node_id, 0) + 1
        if self.offences[node_id] >= self.settings.quarantine_after:
            del self.offences[node_id]
            self.quarantine[node_id] = self.round + self.settings.quarantine_rounds
            detail = (
                f"kept out until round {self.quarantine[node_id]} after {self.settings.quarantine_after} bad updates"
            )
            self._event("quarantine", f"{detail}; the last one: {reason}", node_id)

    def pass_deadline(self, run_id: str, round_number: int) -> None:
        """Note that a round's deadline has passed; one of another round says nothing."""
        self.is_overdue |= (run_id, round_number) == (self.run_id, self.round)

    def rollback(self, old: RoundModel, now: int) -> None:
        """Open the next round with the arrays and scaling of an older version, which becomes the newest one.

        Raises:
            BadMessage: it is of another run, or its arrays have another layout.
        """
        if old.run_id != self.run_id or wire.layout(old.arrays) != wire.layout(self.arrays):
            msg = f"version {old.version} of run {old.run_id} does not fit; expected one of run {self.run_id}"
            raise BadMessage(msg)
        self.strategy = self._new_strategy()
        self.arrays = dict(old.arrays)
        self._event("rollback", f"version {self.version + 1} is version {old.version} again")
        self._open(now, is_new=True, about={"restored_from": old.version}, scaler=old.scaler)

    # --- opening and closing

    def settle(self, now: int) -> bool:
        """Open the first round or close the open one if it is time; return whether that happened."""
        if self.round == 0:
            is_ready = len(self.statistics) >= self.settings.round_quorum
            if is_ready and sum(part.count for part in self.statistics.values()) >= FIRST_SAMPLES:
                self.arrays = self.model.initial_arrays(self.settings.seed)
                self._event("run-started", f"{self.settings.model}, {self.settings.strategy}")
                self._open(now, is_new=True, about={})
                return True
            return False
        if self.settings.round_mode == "async":
            is_time = True
            is_enough = len(self.pending) >= (1 if self.is_overdue else self.settings.async_buffer)
        else:
            is_time = self.is_overdue or self.expected() <= self.answered()
            examples = sum(update.num_examples for update, _ in self.pending)
            is_enough = len(self.pending) >= self.settings.round_quorum and examples >= self.settings.round_min_examples
        if is_time and is_enough:
            self._close(now)
            return True
        # All have answered, and some have said that they had no readings: nobody can answer this round any more.
        has_short_answers = bool(self.abstained) or len(self.pending) >= self.settings.round_quorum
        if self.is_overdue and has_short_answers and self.expected() <= self.answered():
            self._open(now, is_new=False, about={"failed": "too few updates or examples"})
            return True
        return False

    def expected(self) -> set[str]:
        """Return the nodes that the round waits for: those that have answered lately and are to take part."""
        return {
            node
            for node, last in self.heard.items()
            if last >= self.round - self.settings.round_patience
            and self.quarantine.get(node, 0) < self.round
            and (not self.participants or node in self.participants)
        }

    def _close(self, now: int) -> None:
        pending = sorted(self.pending, key=lambda entry: (entry[0].node_id, entry[0].trained_at))
        self.counts["missing"] += len(self.expected() - self.answered()) if self.settings.round_mode == "sync" else 0
        score = sum((update.score for update, _ in pending), Score())
        about: dict[str, Any] = {
            "base_version": self.version,
            "metrics": score.as_dict(),
            "node_metrics": {update.node_id: update.score.as_dict() for update, _ in pending},
            "updates": [
                {"node_id": update.node_id, "num_examples": update.num_examples}
                | {"staleness": self.version - update.base_version, "place": place}
                for update, place in pending
            ],
        }
        try:
            replies = [self.reply(update) for update, _ in pending]
            self.arrays, _ = strategies.aggregate(self.strategy, self.round, replies, seed=self.settings.seed)
        except StrategyError as error:
            self.strategy = self._new_strategy()
            self._event("aggregation-failed", str(error))
            self._open(now, is_new=False, about=about | {"failed": str(error)})
            return
        for update, _ in pending:
            self._watch_for_drift(update)
        self._open(now, is_new=True, about=about)

    def reply(self, update: ModelUpdate) -> Reply:
        """Return an update as the strategy sees it.

        One that started from an older version (async) is moved to the present one, by a step that shrinks with its
        staleness s as 1 / sqrt(1 + s) (FedBuff, Nguyen et al. 2022).
        """
        arrays = update.arrays
        if update.base_version != self.version:
            base, shrink = self.bases[update.base_version], (1 + self.version - update.base_version) ** -0.5
            arrays = {name: self.arrays[name] + shrink * (array - base[name]) for name, array in arrays.items()}
        metrics = {"loss": update.score.loss, "accuracy": update.score.accuracy}
        # A node may be in the buffer twice; in a round it answers once.
        name = f"{update.node_id}/{update.trained_at}" if self.settings.round_mode == "async" else update.node_id
        return Reply(name, arrays, update.num_examples, metrics)

    def _open(self, now: int, *, is_new: bool, about: dict[str, Any], scaler: Scaler | None = None) -> None:
        """Open the next round, with a new version of the model or the same again."""
        settings = self.settings
        counts = {kind: self.counts[kind] for kind in KINDS}
        self.version += is_new and self.round > 0
        self.round += 1
        if settings.feature_scaling == "shared":
            kept = (part for node, part in self.statistics.items() if self.quarantine.get(node, 0) < self.round)
            self.scaler = scaler or scaler_of(merge_statistics(kept))
        self.participants = ()
        nodes = sorted(self.expected()) or sorted(self.heard)
        self.config, sampled = strategies.open_round(self.strategy, self.round, self.arrays, nodes, seed=settings.seed)
        self.participants = tuple(sampled) if len(sampled) < len(nodes) else ()
        if self.round <= self.boost_until:
            self.config["learning-rate-factor"] = settings.drift_boost
        self.opened_at, self.is_overdue = now, False
        self.pending, self.abstained, self.counts = [], [], Counter()
        if settings.round_mode == "async":
            self.bases[self.version] = self.arrays
            self.bases = {
                each: base for each, base in self.bases.items() if self.version - each <= settings.max_staleness
            }
        message = (
            self.open_model().as_dict()
            | {
                "strategy": settings.strategy,
                "strategy_options": settings.strategy_options,
                "seed": settings.seed,
                "counts": counts,
            }
            | about
        )
        check_size(message, "a global model", settings.max_update_bytes)
        self.outbox.append((GLOBAL_MODEL, settings.model, message))
        if is_new:
            self.outbox.append((MODEL_VERSIONS, f"{self.run_id}/{self.version}", message))

    def open_model(self) -> RoundModel:
        """Return the model of the round that is open."""
        return RoundModel(
            self.run_id,
            self.round,
            self.version,
            self.settings.model,
            self.settings.round_mode,
            self.arrays,
            self.scaler,
            self.config,
            self.participants,
            self.opened_at,
            strategies.strategy_state(self.strategy),
        )

    def answered(self) -> set[str]:
        """Return the nodes that have answered in the open round."""
        return {update.node_id for update, _ in self.pending} | set(self.abstained)

    def _watch_for_drift(self, update: ModelUpdate) -> None:
        errors = self.errors.setdefault(update.node_id, [])
        errors.append(1 - update.score.accuracy)
        del errors[:-500]
        if not has_drifted(errors, self.settings.drift_threshold):
            return
        action = self.settings.drift_action
        self._event(
            "drift", f"prequential error {errors[-1]:.3f} in round {self.round}; action: {action}", update.node_id
        )
        errors.clear()
        if action == "reset":
            self.arrays = self.model.initial_arrays(self.settings.seed + self.round)
            self.strategy = self._new_strategy()
        elif action == "boost":
            self.boost_until = self.round + BOOST_ROUNDS

    def _event(self, kind: str, detail: str, node_id: str | None = None) -> None:
        event = {"kind": kind, "run_id": self.run_id, "round": self.round, "node_id": node_id, "detail": detail}
        self.outbox.append((EVENTS, self.run_id, event))
