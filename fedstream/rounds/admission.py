"""Admission: what becomes of a message that reaches the cloud, and of a node that sends bad ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedstream.errors import BadMessage
from fedstream.learning import arrays as wire
from fedstream.learning.training import Statistics
from fedstream.messages.door import read_count, read_field
from fedstream.messages.rounds import GlobalModel, ModelUpdate
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings

if TYPE_CHECKING:
    from fedstream.rounds.federation import Federation


def check_sums(federation: Federation, update: NodeWeight) -> None:
    """Refuse what `hear` cannot take over.

    Raises:
        BadMessage: it speaks of another number of features, or a sum of squares is negative.
    """
    if not update.sums or not is_known(update.node_id, federation.settings):
        return
    if len(update.sums) != federation.features:
        msg = f"sums has {len(update.sums)} numbers; expected {federation.features}, one for each feature"
        raise BadMessage(msg)
    if min(update.squares) < 0:
        msg = f"squares is {update.squares!s:.100}; expected sums of squares, none below 0"
        raise BadMessage(msg)


def hear(federation: Federation, update: NodeWeight) -> None:
    """Take over what a node's readings say about the features' scale; it takes part from now on.

    `check_sums` must have passed it.
    """
    if not update.sums or not is_known(update.node_id, federation.settings):
        return
    known = federation.statistics.get(update.node_id)
    if known is None or update.source != known.source or update.samples > known.count:
        statistics = Statistics(update.samples, update.sums, update.squares, update.source)
        federation.statistics[update.node_id] = statistics
    federation.heard.setdefault(update.node_id, federation.round)


def receive_message(federation: Federation, message: Mapping[str, Any], place: Any) -> str:
    """Read an update and receive it.

    Raises:
        BadMessage: as `receive`; a message that cannot be read is an offence, too.
    """
    try:
        update = ModelUpdate.from_message(message)
    except BadMessage as error:
        offend(federation, str(message.get("node_id")), str(error))
        raise
    return receive(federation, update, place)


def receive(federation: Federation, update: ModelUpdate, place: Any = None) -> str:
    """Count an update by kind, keep it if it is accepted, and return the kind.

    Raises:
        BadMessage: it cannot be used; it counts as an offence of its node.
    """
    try:
        kind = kind_of(federation, update)
    except BadMessage as error:
        offend(federation, update.node_id, str(error))
        raise
    federation.counts[kind] += 1
    if kind in ("accepted", "abstained", "late", "stale"):
        federation.heard[update.node_id] = federation.round
    if kind in ("accepted", "abstained"):
        federation.trained_at[update.node_id] = update.trained_at
        federation.answered.add(update.node_id)
    if kind == "accepted":
        # In the federation's own order, or the strategy's model would take over the order of an update.
        arrays = {name: update.arrays[name] for name in federation.arrays}
        federation.pending.append((replace(update, arrays=arrays), place))
    elif kind == "abstained":
        federation.abstained.append(update.node_id)
    return kind


def offend(federation: Federation, node_id: str, reason: str) -> None:
    """Count a bad update; a node with too many is kept out for some rounds."""
    limit, rounds = federation.settings.quarantine_after, federation.settings.quarantine_rounds
    federation.counts["rejected"] += 1
    federation.offences[node_id] = federation.offences.get(node_id, 0) + 1
    if federation.offences[node_id] >= limit:
        del federation.offences[node_id]
        last = federation.quarantine[node_id] = federation.round + rounds
        federation.fewest_answers = 0  # the round does not wait for it any more
        detail = f"kept out until round {last} after {limit} bad updates; the last one: {reason}"
        federation.event("quarantine", detail, node_id)


def obey(federation: Federation, command: Mapping[str, Any], now: int) -> None:
    """Do what a message of `round-control` says: {"command": "deadline"|"rollback", "run_id", "round"|"model"}.

    Raises:
        BadMessage: it is no such command.
    """
    match command.get("command"):
        case "deadline":
            federation.pass_deadline(str(command.get("run_id")), read_count(command, "round", low=1))
        case "rollback":
            old = read_field(command, "model", dict, "a message of model-versions")
            if read_count({"sent_at": now, **command}, "sent_at", low=0) >= federation.started_at:  # else obeyed before
                federation.rollback(GlobalModel.from_message(old), now)
        case other:
            msg = f"command is {other!r:.100}; expected deadline or rollback"
            raise BadMessage(msg)


def is_known(node: str, settings: Settings) -> bool:
    """Tell whether a node may take part."""
    patterns = [part.strip() for part in settings.known_nodes.split(",") if part.strip()]
    return not patterns or any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)


def kind_of(federation: Federation, update: ModelUpdate) -> str:
    """Return the kind of an update: accepted, abstained, late, duplicate, stale, unknown or quarantined.

    Raises:
        BadMessage: wrong run, future round, unknown version, other layout of arrays, or absurdly far from its base.
    """
    node, settings = update.node_id, federation.settings
    is_async = settings.round_mode == "async"
    if not is_known(node, settings):
        return "unknown"
    if federation.quarantine.get(node, 0) >= federation.round > 0:
        return "quarantined"
    if update.run_id != federation.run_id and (federation.round == 0 or update.trained_at < federation.started_at):
        return "late"  # of the run before this one
    if update.run_id != federation.run_id:
        msg = f"run_id is {update.run_id!r:.100}; expected the present run, {federation.run_id!r}"
        raise BadMessage(msg)
    if update.round > federation.round:
        msg = f"round is {update.round}, which lies in the future; the open one is {federation.round}"
        raise BadMessage(msg)
    if update.trained_at <= federation.trained_at.get(node, -1):
        return "duplicate"
    if not is_async and update.round < federation.round:
        return "late"
    if update.base_version > federation.version or (not is_async and update.base_version != federation.version):
        msg = f"base_version is {update.base_version}, which this round does not know; expected {federation.version}"
        raise BadMessage(msg)
    if is_async and update.base_version not in federation.bases:
        return "stale"
    if not is_async and node in federation.answered:
        return "duplicate"
    if update.num_examples == 0:
        return "abstained"
    if federation.participants and node not in federation.participants:
        return "unknown"
    if wire.layout(update.arrays) != wire.layout(federation.arrays):
        msg = f"arrays are {wire.layout(update.arrays)!s:.200}; expected {wire.layout(federation.arrays)!s:.200}"
        raise BadMessage(msg)
    if len(update.score.confusion) != federation.classes or update.score.num_examples != update.num_examples:
        found = f"{len(update.score.confusion)} classes and {update.score.num_examples} readings"
        msg = f"metrics are of {found}; expected {federation.classes} classes and num_examples={update.num_examples}"
        raise BadMessage(msg)
    norm = wire.distance(update.arrays, federation.bases[update.base_version] if is_async else federation.arrays)
    if not norm <= settings.max_update_norm:
        limit = f"MAX_UPDATE_NORM={settings.max_update_norm:g}"
        msg = f"the update is {norm:g} away from the model it started from; expected at most {limit}"
        raise BadMessage(msg)
    return "accepted"
