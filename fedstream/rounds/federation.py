"""Rounds: which updates count, when a round closes, and what the next one starts from.

Pure: messages and the time come in as arguments, messages go out through `outbox`. Cloud and simulation share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from fedstream.errors import LONGEST_REASON, BadMessage
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays, NamedArrays
from fedstream.learning.models import Model
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler
from fedstream.messages.rounds import (
    Deadline,
    Event,
    GlobalModel,
    ModelUpdate,
    Place,
    Rollback,
    TooLargeError,
    UsedUpdate,
    check_means,
    check_size,
    fit_model,
    global_model,
    in_order,
)
from fedstream.messages.topics import EVENTS, GLOBAL_MODEL, MODEL_VERSIONS, Outgoing
from fedstream.messages.weights import NodeWeight, merge_sums
from fedstream.rounds import admission, strategies
from fedstream.rounds.admission import KINDS
from fedstream.rounds.drift import BOOST_ROUNDS
from fedstream.rounds.nodes import is_known
from fedstream.rounds.open_round import OpenRound, Pending
from fedstream.rounds.run_state import RunState, made_by, resumed_run
from fedstream.rounds.strategies import Reply, StrategyError
from fedstream.settings import Settings, parse_options
from fedstream.texts import printable

MOST_ROUNDS = 10**12  # thousands of years; the next one, too, is a number that a message may have
FIRST_SAMPLES = 20  # readings in all before the first round: fewer say little about the features' scale


def strategy_of(settings: Settings) -> Any:
    """Return the strategy of the settings, without any state.

    Raises:
        SettingError: there is no such strategy, or it does not take these options.
    """
    options = parse_options("STRATEGY_OPTIONS", settings.strategy_options)
    return strategies.make_strategy(settings.strategy, options)


def resumable(last: GlobalModel, settings: Settings, model: Model) -> GlobalModel:
    """Return a model of the topic if a run can go on from it: one that the nodes, too, will take.

    Raises:
        BadMessage: it does not fit the settings.
    """
    last = fit_model(last, model, settings)
    if max(last.round, last.version) > MOST_ROUNDS:
        raise BadMessage(
            f"round is {last.round}, version {last.version}; expected at most {MOST_ROUNDS}, to go on from"
        )
    options = strategies.options_in(strategy_of(settings), last.strategy_state)
    if options and [last.strategy, last.strategy_options] == [settings.strategy, settings.strategy_options]:
        raise BadMessage(f"strategy_state sets {', '.join(options)}; expected no option of STRATEGY_OPTIONS")
    run = resumed_run(last, settings)
    try:
        Federation(run, settings, model, {})
    except StrategyError as error:
        raise BadMessage(error.message) from error
    return last


def reply_of(update: ModelUpdate, opened: OpenRound, bases: Mapping[int, NamedArrays], mode: str) -> Reply:
    """Return an update as the strategy sees it.

    One that started from an older version (async) is moved to the present one, by a step that shrinks with its
    staleness s as 1 / sqrt(1 + s) (FedBuff, Nguyen et al. 2022).
    """
    arrays, staleness = update.arrays, opened.version - update.base_version
    if staleness:
        base, shrink = wire.from_wire(bases[update.base_version]), (1 + staleness) ** -0.5
        arrays = {name: opened.arrays[name] + shrink * (array - base[name]) for name, array in arrays.items()}
    metrics = {"loss": update.metrics.loss, "accuracy": update.metrics.accuracy}
    # A node may be in the buffer twice; in a round it answers once.
    name = f"{update.node_id}/{update.trained_at}" if mode == "async" else update.node_id
    return Reply(name, arrays, update.num_examples, metrics)


class Federation:
    """One run at work: its state, the strategy, and the messages that are to be sent."""

    def __init__(
        self,
        run: RunState,
        settings: Settings,
        model: Model,
        latest: Mapping[str, NodeWeight],
        draw_secret: Callable[[], int] | None = None,
    ) -> None:
        """Go on with a run; if STRATEGY was changed since, the new one starts afresh.

        Args:
            run: its state, which is changed from now on.
            settings: of the rounds.
            model: what the nodes train.
            latest: the nodes' newest running weights, which whoever owns them keeps up to date.
            draw_secret: gives a number that nobody knows, for the noise of differential privacy; without it the noise
                is drawn from the seed, as a simulation wants it.

        Raises:
            SettingError: there is no such strategy.
        """
        self._draw_secret = draw_secret
        self.run, self.settings, self.model, self.latest = run, settings, model, latest
        self.outbox: list[Outgoing] = []
        self.is_to_be_said_again = False  # the open round's model: its deadline has passed, perhaps not for all nodes
        self.strategy = strategy_of(settings)
        state = run.opened.model.strategy_state if run.opened.model else {}
        is_same = run.made_by[2:] == [settings.strategy, settings.strategy_options]
        if is_same and state.get("class") == type(self.strategy).__qualname__:
            strategies.restore_strategy(self.strategy, state)
        run.made_by = made_by(settings)
        if settings.round_mode == "async" and run.opened.model:  # which may have been sync until now
            run.bases.setdefault(run.opened.version, run.opened.model.named_arrays)
        self.missing = self._awaited() - run.opened.answered.keys()  # nodes that the round still waits for

    def _awaited(self) -> set[str]:
        opened = self.run.opened
        return self.run.nodes.awaited(opened.number, opened.participants, self.settings.round_patience)

    # --- messages

    def check(self, weight: NodeWeight) -> None:
        """Refuse a running weight that cannot be used, before anything is changed by it.

        Raises:
            BadMessage: as `admission.check_sums`.
        """
        admission.check_sums(weight, self.settings)

    def hear(self, weight: NodeWeight) -> None:
        """Let a node that tells its features' sums take part from now on; `latest` has the weight already."""
        if weight.sums and is_known(weight.node_id, self.settings):
            self.run.nodes.join(weight.node_id, self.run.opened.number)
            self._wait_for(weight.node_id)

    def receive(self, update: ModelUpdate, place: Place | None = None) -> str:
        """Count an update by kind, keep it if it is accepted, and return the kind.

        Raises:
            BadMessage: it cannot be used; unless it is of another run, it counts as an offence of its node.
        """
        run, node = self.run, update.node_id
        kind, reason = admission.judge(update, run, self.settings)
        if kind == "rejected":
            self.offend(node, reason)
        if reason:
            raise BadMessage(reason)
        run.opened.count(kind)
        if kind in ("accepted", "abstained", "late", "stale"):
            run.nodes.answer(node, run.opened.number)
            self._wait_for(node)
        if kind in ("accepted", "abstained"):
            run.nodes.trained_at[node] = update.trained_at
            run.opened.answered[node] = kind
            self.missing.discard(node)
        if kind == "accepted":
            run.nodes.forgive(node)
            # In the federation's own order, or the strategy's model would take over the order of an update.
            ordered = in_order(update.named_arrays, run.opened.arrays)
            run.opened.pending.append(Pending(replace(update, named_arrays=ordered), place))
        return kind

    def offend(self, node: str, reason: str) -> None:
        """Count a bad update; a node with too many is kept out for some rounds."""
        self.run.opened.count("rejected")
        last = self.run.nodes.offend(node, self.run.opened.number, self.settings)
        if last is not None:
            self.missing.discard(node)
            limit = self.settings.quarantine_after
            detail = f"kept out until round {last} after {limit} bad updates; the last one: {reason}"
            self.event("quarantine", detail, node)

    def obey(self, command: Deadline | Rollback, now: int) -> None:
        """Do what a message of `round-control` says.

        Raises:
            BadMessage: it cannot be done.
        """
        if isinstance(command, Deadline):
            self.pass_deadline(command.run_id, command.round)
        elif command.run_id != command.model.run_id:
            both = f"run_id is {command.run_id!r}, that of the model {command.model.run_id!r}"
            raise BadMessage(f"{both}; expected one name of a run")
        elif command.current < self.run.kept.since:
            both = f"current is {command.current}; expected at least {self.run.kept.since}, the version with which"
            raise BadMessage(f"{both} the cloud went on when its state was lost: it may have been obeyed before")
        else:
            self.rollback(command.model, now)

    def pass_deadline(self, run_id: str, number: int) -> None:
        """Note that a round's deadline has passed; one of another round says nothing."""
        if (run_id, number) == (self.run.run_id, self.run.opened.number):
            self.run.opened.is_overdue = self.is_to_be_said_again = True

    def rollback(self, old: GlobalModel, now: int) -> None:
        """Open the next round with the arrays and scaling of an older version, which becomes the newest one.

        Raises:
            BadMessage: it is of another run or none of its versions so far, its arrays or scaler have another layout
                or are not what the cloud has published. A cloud that has lost its state knows those that were on
                their topic when it went on.
        """
        opened = self.run.opened
        is_fit = opened.model and old.run_id == self.run.run_id
        if not is_fit or wire.layout(old.arrays) != wire.layout(opened.arrays):
            msg = f"version {old.version} of run {old.run_id} does not fit; expected one of run {self.run.run_id}"
            raise BadMessage(msg)
        check_means(old.scaler, self.settings)
        if old.version > opened.version:
            raise BadMessage(f"version is {old.version}; expected one that there is, at most {opened.version}")
        if old.fingerprint != self.run.kept.fingerprints.get(old.version):
            what = f"version {old.version} has arrays or a scaler that the cloud has not published as this version"
            raise BadMessage(f"{what}; expected its message on topic {MODEL_VERSIONS}, if it is still kept there")
        self.strategy = strategy_of(self.settings)
        self.event("rollback", f"version {opened.version + 1} is version {old.version} again")
        arrays = {name: old.arrays[name] for name in opened.arrays}
        self._open(now, arrays, scaler=old.scaler, restored_from=old.version)

    def _wait_for(self, node: str) -> None:
        opened, patience = self.run.opened, self.settings.round_patience
        is_awaited = self.run.nodes.is_awaited(node, opened.number, opened.participants, patience)
        if is_awaited and node not in opened.answered:
            self.missing.add(node)

    # --- opening and closing

    def settle(self, now: int) -> bool:
        """Open the first round or close the open one if it is time; return whether that happened."""
        opened, settings = self.run.opened, self.settings
        if opened.model is None:
            return self._begin(now)
        if settings.round_mode == "async":
            is_time = True
            is_enough = len(opened.pending) >= (1 if opened.is_overdue else settings.async_buffer)
        else:
            is_time = opened.is_overdue or not self.missing
            is_enough = (
                is_time
                and len(opened.pending) >= settings.round_quorum
                and opened.examples() >= settings.round_min_examples
            )
        if is_time and is_enough:
            self._close(opened.model, now)
            return True
        # All have answered, some without readings, or some are kept out for a while: nobody can answer any more.
        if opened.is_overdue and not self.missing:
            is_short = "abstained" in opened.answered.values() or len(opened.pending) >= settings.round_quorum
            if is_short or any(last >= opened.number for last in self.run.nodes.quarantine.values()):
                self._open(now, None, failed="too few updates or examples")
                return True
        return False

    def _begin(self, now: int) -> bool:
        known = self._telling()
        if len(known) < self.settings.round_quorum or sum(each.samples for each in known) < FIRST_SAMPLES:
            return False
        self.event("run-started", f"{self.settings.model}, {self.settings.strategy}")
        self._open(now, self.model.initial_arrays(self.settings.seed))
        return True

    def _telling(self) -> list[NodeWeight]:
        """Return the newest weights of the nodes that take part and tell their features' sums."""
        return [each for each in self.latest.values() if each.sums and is_known(each.node_id, self.settings)]

    def _close(self, opened: GlobalModel, now: int) -> None:
        run, settings = self.run, self.settings
        pending = sorted(run.opened.pending, key=lambda each: (each.update.node_id, each.update.trained_at))
        updates = [each.update for each in pending]
        if settings.round_mode == "sync" and self.missing:
            run.opened.counts["missing"] = len(self.missing)
        about: dict[str, Any] = {
            "base_version": opened.version,
            "metrics": sum((update.metrics for update in updates), Score()),
            "node_metrics": {update.node_id: update.metrics for update in updates},
            "updates": tuple(
                UsedUpdate(update.node_id, update.num_examples, opened.version - update.base_version, each.place)
                for update, each in zip(updates, pending, strict=True)
            ),
        }
        try:
            replies = [reply_of(update, run.opened, run.bases, settings.round_mode) for update in updates]
            draw = self._draw_secret if strategies.is_private(self.strategy) else None
            seed = draw() if draw else settings.seed
            arrays, _ = strategies.aggregate(self.strategy, opened.round, replies, seed=seed)
        except StrategyError as error:
            self._fail(now, str(error), **about)
            return
        if updates:
            most = settings.versions_kept
            self._forget(run.kept.rate(opened.version, about["metrics"].f1, opened.version, most))
        for update in updates:
            if self._drifts(update):
                arrays = self._act_on_drift(arrays)
        try:
            self._open(now, arrays, **about)
        except TooLargeError as error:  # of its nodes' names and scores: another round with as many would be so, too
            self._fail(now, f"too many answers for one message: {error.message}")

    def _fail(self, now: int, reason: str, **about: Any) -> None:
        """Open the next round with the same version, since the strategy has made no other one, or none that fits."""
        self.strategy = strategy_of(self.settings)
        self.event("aggregation-failed", reason)
        failed = printable(f"{reason:.{LONGEST_REASON}}")
        try:
            self._open(now, None, **about, failed=failed)
        except TooLargeError:  # with the scores of so many nodes
            self._open(now, None, failed=failed)

    def _drifts(self, update: ModelUpdate) -> bool:
        error, settings, number = 1 - update.metrics.accuracy, self.settings, self.run.opened.number
        if not self.run.drift.watch(update.node_id, error, settings.drift_threshold):
            return False
        detail = f"prequential error {error:.3f} in round {number}; action: {settings.drift_action}"
        self.event("drift", detail, update.node_id, action=settings.drift_action)
        return True

    def _act_on_drift(self, arrays: Arrays) -> Arrays:
        """Do DRIFT_ACTION; return the arrays that the next round starts from."""
        number = self.run.opened.number
        if self.settings.drift_action == "reset":
            self.strategy = strategy_of(self.settings)
            return self.model.initial_arrays(self.settings.seed + number)
        if self.settings.drift_action == "boost":
            self.run.drift.boost_until = number + BOOST_ROUNDS
        return arrays

    def _open(self, now: int, arrays: Arrays | None, scaler: Scaler | None = None, **about: Any) -> None:
        """Open the next round: with a new version of the model, or (None) the same again.

        `about` is what its message tells of the round before it.
        """
        run, settings, before = self.run, self.settings, self.run.opened
        number = before.number + 1
        version = before.version + (arrays is not None and before.model is not None)
        start = before.arrays if arrays is None else arrays
        config, participants = self._sample(number, start)
        if number <= run.drift.boost_until:
            config["learning-rate-factor"] = settings.drift_boost
        model = global_model(
            run.run_id,
            number,
            version,
            start,
            model=settings.model,
            mode=settings.round_mode,
            scaler=(scaler if settings.feature_scaling == "shared" else None) or self._scaler(number),
            config=config,
            participants=participants,
            opened_at=now,
            strategy_state=strategies.strategy_state(self.strategy),
            strategy=settings.strategy,
            strategy_options=settings.strategy_options,
            # Who knows the seed could subtract the noise of differential privacy.
            seed=None if strategies.is_private(self.strategy) else settings.seed,
            counts={kind: before.counts.get(kind, 0) for kind in KINDS},
            **about,
        )
        check_size(model, "a global model", settings.max_update_bytes)
        run.opened, self.is_to_be_said_again = OpenRound(model), False
        self.missing = self._awaited()
        if settings.round_mode == "async":
            run.bases[version] = model.named_arrays
            run.bases = {each: base for each, base in run.bases.items() if version - each <= settings.max_staleness}
        self.outbox.append((GLOBAL_MODEL, settings.model, model))
        if arrays is not None:
            self.outbox.append((MODEL_VERSIONS, f"{run.run_id}/{version}", model))
            self._forget(run.kept.add(version, model.fingerprint, settings.versions_kept))

    def _forget(self, versions: list[int]) -> None:
        """Have versions removed from their topic: an empty message under its key does that."""
        self.outbox += [(MODEL_VERSIONS, f"{self.run.run_id}/{version}", None) for version in versions]

    def _scaler(self, number: int) -> Scaler | None:
        """Return the scaler of all readings of the nodes that are not kept out; of none, that of the round before.

        Beside a model with the noise of differential privacy it is a rounded one.
        """
        before = self.run.opened.model.scaler if self.run.opened.model else None
        if self.settings.feature_scaling != "shared":
            return before
        kept = [each.readings for each in self._telling() if not self.run.nodes.is_kept_out(each.node_id, number)]
        if not kept:
            return before
        exact = merge_sums(kept).scaler()
        is_secret = self._draw_secret and strategies.is_private(self.strategy)  # a simulation's data have no limits
        return exact.rounded(self.settings.table) if is_secret else exact

    def _sample(self, number: int, arrays: Arrays) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Let the strategy say how the nodes are to train in a round, and which of them (empty: all)."""
        known = self.run.nodes
        nodes = known.to_ask(number, self.settings.round_patience)
        try:
            config, sampled = strategies.open_round(self.strategy, number, arrays, nodes, seed=self.settings.seed)
        except StrategyError as error:  # it wants more nodes than there are, say: then all are asked
            self.event("sampling-failed", str(error), number=number)
            return {"server-round": number}, ()
        if len(sampled) == len(nodes):
            return config, ()
        if sum(map(len, sampled)) > self.settings.max_update_bytes / 4:
            self.event("sampling-failed", "the names of the sampled nodes fill a message; all are asked", number=number)
            return config, ()
        for node in set(nodes) - set(sampled):
            known.heard[node] += 1  # who is not asked is not silent
        return config, tuple(sampled)

    def event(self, kind: str, detail: str, node_id: str | None = None, **more: Any) -> None:
        """Put an event into the outbox; `more` is its `action`, or the `number` of another round than the open one."""
        number = more.get("number", self.run.opened.number)
        detail = printable(f"{detail:.{LONGEST_REASON}}")
        event = Event(kind, self.run.run_id, number, node_id, detail, more.get("action"))
        self.outbox.append((EVENTS, self.run.run_id, event))
