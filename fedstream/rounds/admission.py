"""Admission: what becomes of a node's message, before anything is changed by it."""

from __future__ import annotations

from typing import NamedTuple

from fedstream.errors import BadMessage
from fedstream.learning import arrays as wire
from fedstream.messages.rounds import ModelUpdate
from fedstream.messages.weights import NodeWeight
from fedstream.rounds.nodes import is_known
from fedstream.rounds.run_state import RunState
from fedstream.settings import Settings

KINDS = ("accepted", "abstained", "late", "duplicate", "stale", "unknown", "quarantined", "rejected", "missing")


class Verdict(NamedTuple):
    """What becomes of an update: its kind, one of KINDS, and why it is rejected, if it is."""

    kind: str
    reason: str = ""


def check_sums(weight: NodeWeight, features: int, settings: Settings) -> None:
    """Refuse sums that cannot scale a model's features.

    Raises:
        BadMessage: they are of another number of features.
    """
    if weight.sums and is_known(weight.node_id, settings) and len(weight.sums) != features:
        msg = f"sums has {len(weight.sums)} numbers; expected {features}, one for each feature"
        raise BadMessage(msg)


def judge(update: ModelUpdate, run: RunState, settings: Settings) -> Verdict:
    """Return what becomes of an update in the round that is open."""
    node, opened, is_async = update.node_id, run.opened, settings.round_mode == "async"
    if not is_known(node, settings):
        return Verdict("unknown")
    if opened.number and run.nodes.is_kept_out(node, opened.number):
        return Verdict("quarantined")
    if update.run_id != run.run_id and (opened.number == 0 or update.trained_at < run.started_at):
        return Verdict("late")  # of the run before this one
    if update.run_id != run.run_id:
        return _rejected(f"run_id is {update.run_id!r:.100}; expected the present run, {run.run_id!r}")
    if update.round > opened.number:
        return _rejected(f"round is {update.round}, which lies in the future; the open one is {opened.number}")
    if update.trained_at <= run.nodes.trained_at.get(node, -1):
        return Verdict("duplicate")
    if not is_async and update.round < opened.number:
        return Verdict("late")
    if update.base_version > opened.version or (not is_async and update.base_version != opened.version):
        found = f"base_version is {update.base_version}, which this round does not know"
        return _rejected(f"{found}; expected {opened.version}")
    if is_async and update.base_version not in run.bases:
        return Verdict("stale")
    if not is_async and node in opened.answered:
        return Verdict("duplicate")
    if update.num_examples == 0:
        return Verdict("abstained")
    if opened.participants and node not in opened.participants:
        return Verdict("unknown")
    return _judge_content(update, run, settings)


def _judge_content(update: ModelUpdate, run: RunState, settings: Settings) -> Verdict:
    expected, found = (wire.layout(arrays) for arrays in (run.opened.arrays, update.arrays))
    if found != expected:
        return _rejected(f"arrays are {found!s:.200}; expected {expected!s:.200}")
    classes, measured = len(update.metrics.confusion), update.metrics.num_examples
    if classes != run.classes or measured != update.num_examples:
        wanted = f"{run.classes} classes and num_examples={update.num_examples}"
        return _rejected(f"metrics are of {classes} classes and {measured} readings; expected {wanted}")
    is_async = settings.round_mode == "async"
    base = wire.from_wire(run.bases[update.base_version]) if is_async else run.opened.arrays
    norm = wire.distance(update.arrays, base)
    if not norm <= settings.max_update_norm:
        limit = f"MAX_UPDATE_NORM={settings.max_update_norm:g}"
        return _rejected(f"the update is {norm:g} away from the model it started from; expected at most {limit}")
    return Verdict("accepted")


def _rejected(reason: str) -> Verdict:
    return Verdict("rejected", reason)
