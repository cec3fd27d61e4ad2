"""Admission: what becomes of a node's message, before anything is changed by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fedstream.errors import BadMessage
from fedstream.learning import arrays as wire
from fedstream.messages.rounds import ModelUpdate
from fedstream.messages.weights import NodeWeight
from fedstream.rounds.nodes import MOST_NODES, is_known
from fedstream.rounds.run_state import RunState
from fedstream.settings import Settings

MOST_GROWTH = 10**9  # readings between two weights of a node that are neighbours on their topic
SUM_TOLERANCE = 1e-9  # of sums, each addition of which rounds

KINDS = ("accepted", "abstained", "late", "duplicate", "stale", "unknown", "quarantined", "rejected", "missing")


class Verdict(NamedTuple):
    """What becomes of an update: its kind, one of KINDS, and why it is a dead letter, if it is.

    Only what is "rejected" is an offence of its node.
    """

    kind: str
    reason: str = ""


def check_growth(weight: NodeWeight, latest: Mapping[str, NodeWeight]) -> None:
    """Refuse a weight that would stand above all true ones of its node, and a name too many.

    Raises:
        BadMessage: it has far more samples than its node's last one, or is of one node more than `MOST_NODES`.
    """
    before = latest.get(weight.node_id)
    if before is None:
        if len(latest) >= MOST_NODES:
            raise BadMessage(
                f"node_id is {weight.node_id!r}, a new name; expected one of the {len(latest)} known nodes"
            )
    elif weight.source == before.source and weight.samples > before.samples + MOST_GROWTH:
        grown = f"samples is {weight.samples} after {before.samples}; expected at most {MOST_GROWTH} more at once"
        raise BadMessage(f"{grown}. If the cloud was away for days: make reset S=cloud")


def check_sums(weight: NodeWeight, settings: Settings) -> None:
    """Refuse sums that cannot be those of readings within FEATURES: they scale the features of all nodes.

    Raises:
        BadMessage: they are of another number of features, a mean is beyond its feature's limits, or a mean square
            lies below the square of the mean.
    """
    table = settings.table
    if not weight.sums or not is_known(weight.node_id, settings):
        return
    if len(weight.sums) != len(table):
        msg = f"sums has {len(weight.sums)} numbers; expected {len(table)}, one for each feature"
        raise BadMessage(msg)
    for feature, total, squares in zip(table, weight.sums, weight.squares, strict=True):
        mean, square = total / weight.samples, squares / weight.samples
        slack = SUM_TOLERANCE * max(abs(feature.low), abs(feature.high))
        if not feature.low - slack <= mean <= feature.high + slack:
            raise BadMessage(f"the mean of {feature.name} is {mean:g}; expected {feature.expected}, as FEATURES say")
        most = max(feature.low**2, feature.high**2)
        slack = SUM_TOLERANCE * most
        if not mean**2 - slack <= square <= most + slack:
            limits = f"at least {mean**2:g}, the square of the mean, and at most {most:g}"
            raise BadMessage(f"the mean square of {feature.name} is {square:g}; expected {limits}")


def judge(update: ModelUpdate, run: RunState, settings: Settings) -> Verdict:
    """Return what becomes of an update in the round that is open."""
    node, opened, is_async = update.node_id, run.opened, settings.round_mode == "async"
    if not is_known(node, settings):
        return Verdict("unknown")
    if opened.number and run.nodes.is_kept_out(node, opened.number):
        return Verdict("quarantined")
    if update.run_id != run.run_id:  # of a run before this one, or to a model that was not the cloud's: no offence
        return Verdict("late")
    if update.round > opened.number:
        return _rejected(f"round is {update.round}, which lies in the future; the open one is {opened.number}")
    if update.trained_at == run.nodes.trained_at.get(node):  # the same one again; whether it is later tells no clock
        return Verdict("duplicate")
    if not is_async and update.round < opened.number:
        return Verdict("late")
    if update.base_version > opened.version or (not is_async and update.base_version != opened.version):
        found = f"base_version is {update.base_version}, which this round does not know"
        return _rejected(f"{found}; expected {opened.version}")
    if is_async and update.base_version not in run.bases:
        return Verdict("stale")
    if node in opened.answered if not is_async else _waits(update, run):
        return Verdict("duplicate")
    if update.num_examples == 0:
        return Verdict("abstained")
    if opened.participants and node not in opened.participants:
        return Verdict("unknown")
    return _judge_content(update, run, settings)


def _waits(update: ModelUpdate, run: RunState) -> bool:
    """Tell whether an update is among those that wait for the end of the round."""
    name = update.node_id, update.trained_at
    return any((each.update.node_id, each.update.trained_at) == name for each in run.opened.pending)


def _judge_content(update: ModelUpdate, run: RunState, settings: Settings) -> Verdict:
    expected, found = (wire.layout(arrays) for arrays in (run.opened.arrays, update.arrays))
    if found != expected:
        return _rejected(f"arrays are {found!s:.200}; expected {expected!s:.200}")
    classes, measured = len(update.metrics.confusion), update.metrics.num_examples
    if classes != run.classes or measured != update.num_examples:
        wanted = f"{run.classes} classes and num_examples={update.num_examples}"
        return _rejected(f"metrics are of {classes} classes and {measured} readings; expected {wanted}")
    if update.num_examples > settings.max_readings_per_update:
        limit = f"MAX_READINGS_PER_UPDATE={settings.max_readings_per_update}, the same as the node's"
        return _rejected(f"num_examples is {update.num_examples}; expected at most {limit}")
    is_async = settings.round_mode == "async"
    base = wire.from_wire(run.bases[update.base_version]) if is_async else run.opened.arrays
    norm = wire.distance(update.arrays, base)
    if not norm <= settings.max_update_norm:
        limit = f"MAX_UPDATE_NORM={settings.max_update_norm:g}"
        return _rejected(f"the update is {norm:g} away from the model it started from; expected at most {limit}")
    return Verdict("accepted")


def _rejected(reason: str) -> Verdict:
    return Verdict("rejected", reason)
