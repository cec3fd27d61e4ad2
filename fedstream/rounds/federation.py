"""Rounds: which updates count, when a round closes, and what the next one starts from.

Pure: messages and the time come in as arguments, messages go out through `outbox`. Cloud and simulation share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedstream.errors import BadMessage
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays
from fedstream.learning.models import Model
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler, Statistics, merge_statistics, scaler_of
from fedstream.messages.rounds import GlobalModel, ModelUpdate, check_scaler, check_size
from fedstream.messages.topics import EVENTS, GLOBAL_MODEL, MODEL_VERSIONS, Outgoing
from fedstream.rounds import strategies
from fedstream.rounds.drift import watch_for_drift
from fedstream.rounds.strategies import Reply, StrategyError
from fedstream.settings import Settings, parse_options

FIRST_SAMPLES = 20  # readings in all before the first round: fewer say little about the features' scale

KINDS = ("accepted", "abstained", "late", "duplicate", "stale", "unknown", "quarantined", "rejected", "missing")


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
    about: Mapping[str, Any] = field(default_factory=dict)  # what the open round's message tells beside the model
    started_at: int = 0  # ms since 1970, as all times
    opened_at: int = 0
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
        """Start with an empty outbox and with what follows from the rest; `join` gives the parts that are not saved."""
        self.outbox: list[Outgoing] = []
        self.is_to_be_said_again = False  # the open round's model: its deadline has passed, perhaps not for all nodes
        self.answered = {update.node_id for update, _ in self.pending} | set(self.abstained)  # in the open round
        self.fewest_answers = 0  # with fewer the round is not complete: see `is_complete`

    def join(self, settings: Settings, model: Model, strategy_state: Mapping[str, Any] | None = None) -> Federation:
        """Give a new or restored federation its settings, model and strategy; return it."""
        self.settings, self.model = settings, model
        self.strategy = self.new_strategy()
        if strategy_state and strategy_state.get("class") == type(self.strategy).__qualname__:
            strategies.restore_strategy(self.strategy, strategy_state)
        if settings.round_mode == "async" and self.round:  # which may have been sync until now
            self.bases.setdefault(self.version, self.arrays)
        return self

    def new_strategy(self) -> Any:
        """Return the strategy of the settings, without any state."""
        options = parse_options("STRATEGY_OPTIONS", self.settings.strategy_options)
        return strategies.make_strategy(self.settings.strategy, options)

    def pass_deadline(self, run_id: str, round_number: int) -> None:
        """Note that a round's deadline has passed; one of another round says nothing."""
        if (run_id, round_number) == (self.run_id, self.round):
            self.is_overdue = self.is_to_be_said_again = True

    def rollback(self, old: GlobalModel, now: int) -> None:
        """Open the next round with the arrays and scaling of an older version, which becomes the newest one.

        Raises:
            BadMessage: it is of another run, or its arrays or scaler have another layout.
        """
        if not self.round or old.run_id != self.run_id or wire.layout(old.arrays) != wire.layout(self.arrays):
            msg = f"version {old.version} of run {old.run_id} does not fit; expected one of run {self.run_id}"
            raise BadMessage(msg)
        check_scaler(old.scaler, self.features)
        self.strategy = self.new_strategy()
        self.arrays = {name: old.arrays[name] for name in self.arrays}
        self.event("rollback", f"version {self.version + 1} is version {old.version} again")
        self._open(now, is_new=True, about={"restored_from": old.version}, scaler=old.scaler)

    # --- opening and closing

    def settle(self, now: int) -> bool:
        """Open the first round or close the open one if it is time; return whether that happened."""
        if self.round == 0:
            is_ready = len(self.statistics) >= self.settings.round_quorum
            if is_ready and sum(part.count for part in self.statistics.values()) >= FIRST_SAMPLES:
                self.arrays, self.started_at = self.model.initial_arrays(self.settings.seed), now
                self.event("run-started", f"{self.settings.model}, {self.settings.strategy}")
                self._open(now, is_new=True, about={})
                return True
            return False
        if self.settings.round_mode == "async":
            is_time = True
            is_enough = len(self.pending) >= (1 if self.is_overdue else self.settings.async_buffer)
        else:
            is_time = self.is_overdue or self.is_complete()
            is_enough = (
                is_time
                and len(self.pending) >= self.settings.round_quorum
                and sum(update.num_examples for update, _ in self.pending) >= self.settings.round_min_examples
            )
        if is_time and is_enough:
            self._close(now)
            return True
        # All have answered, some without readings, or some are kept out for a while: nobody can answer any more.
        if self.is_overdue and self.is_complete():
            is_short = bool(self.abstained) or len(self.pending) >= self.settings.round_quorum
            if is_short or any(last >= self.round for last in self.quarantine.values()):
                self._open(now, is_new=False, about={"failed": "too few updates or examples"})
                return True
        return False

    def is_complete(self) -> bool:
        """Tell whether all nodes that the round waits for have answered.

        Asked after each message, so that its cost must not grow with the nodes: as many answers as were missing at the
        last look must have come before another look is worth it. Nodes that join only add to them.
        """
        if len(self.answered) < self.fewest_answers:
            return False
        missing = self.expected() - self.answered
        self.fewest_answers = len(self.answered) + len(missing)
        return not missing

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
        self.counts["missing"] += len(self.expected() - self.answered) if self.settings.round_mode == "sync" else 0
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
            self.strategy = self.new_strategy()
            self.event("aggregation-failed", str(error))
            self._open(now, is_new=False, about=about | {"failed": str(error)})
            return
        for update, _ in pending:
            watch_for_drift(self, update)
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
            kept = [part for node, part in self.statistics.items() if self.quarantine.get(node, 0) < self.round]
            self.scaler = scaler or (scaler_of(merge_statistics(kept)) if kept else self.scaler)
        self._sample()
        if self.round <= self.boost_until:
            self.config["learning-rate-factor"] = settings.drift_boost
        self.opened_at, self.is_overdue, self.is_to_be_said_again = now, False, False
        self.pending, self.abstained, self.answered, self.counts = [], [], set(), Counter()
        self.fewest_answers = 0
        if settings.round_mode == "async":
            self.bases[self.version] = self.arrays
            self.bases = {
                each: base for each, base in self.bases.items() if self.version - each <= settings.max_staleness
            }
        self.about = {
            "strategy": settings.strategy,
            "strategy_options": settings.strategy_options,
            # Who knows the seed could subtract the noise of differential privacy.
            "seed": None if settings.strategy.startswith("Differential") else settings.seed,
            "counts": counts,
        } | about
        message = self.open_model().as_dict()
        check_size(message, "a global model", settings.max_update_bytes)
        self.outbox.append((GLOBAL_MODEL, settings.model, message))
        if is_new:
            self.outbox.append((MODEL_VERSIONS, f"{self.run_id}/{self.version}", message))

    def _sample(self) -> None:
        """Let the strategy say how the nodes are to train, and which of them."""
        self.participants, self.config = (), {"server-round": self.round}
        nodes = sorted(self.expected()) or sorted(self.heard)
        try:
            self.config, sampled = strategies.open_round(
                self.strategy, self.round, self.arrays, nodes, seed=self.settings.seed
            )
        except StrategyError as error:  # it wants more nodes than there are, say: then all are asked
            self.event("sampling-failed", str(error))
            return
        if len(sampled) < len(nodes):
            self.participants = tuple(sampled)
            for node in set(nodes) - set(sampled):
                self.heard[node] += 1  # who is not asked is not silent

    def open_model(self) -> GlobalModel:
        """Return the model of the round that is open, with all that its message tells."""
        return GlobalModel(
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
            self.about,
        )

    def event(self, kind: str, detail: str, node_id: str | None = None) -> None:
        """Put an event into the outbox."""
        event = {"kind": kind, "run_id": self.run_id, "round": self.round, "node_id": node_id, "detail": detail}
        self.outbox.append((EVENTS, self.run_id, event))
